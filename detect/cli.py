"""``detect``: train detectors, evaluate them, judge pictures."""

from __future__ import annotations

import importlib

from crossfake.cli import command_group
from crossfake.detect.commands.calibrate import calibrate
from crossfake.detect.commands.ensemble import ensemble
from crossfake.detect.commands.evaluate import evaluate
from crossfake.detect.commands.explain import explain
from crossfake.detect.commands.export import export
from crossfake.detect.commands.import_detector import import_detector
from crossfake.detect.commands.predict import predict
from crossfake.detect.commands.train import train
from crossfake.detect.commands.tune import tune

detect = command_group("detect", "Train detectors, evaluate them, judge pictures.")
above = importlib.import_module("crossfake.serve.cli")  # of the part above this one, so it is found by name
for command in (
    train,
    evaluate,
    predict,
    explain,
    tune,
    calibrate,
    export,
    ensemble,
    import_detector,
    above.serve,
    above.verify_report,
):
    detect.add_command(command)
