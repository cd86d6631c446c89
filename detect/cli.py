"""``detect``: train detectors, evaluate them, judge pictures."""

from __future__ import annotations

from crossfake.cli import command_group
from crossfake.detect.commands.calibrate import calibrate
from crossfake.detect.commands.ensemble import ensemble
from crossfake.detect.commands.evaluate import evaluate
from crossfake.detect.commands.explain import explain
from crossfake.detect.commands.export import export
from crossfake.detect.commands.predict import predict
from crossfake.detect.commands.serve import serve
from crossfake.detect.commands.train import train
from crossfake.detect.commands.tune import tune
from crossfake.detect.commands.verify_report import verify_report

detect = command_group("detect", "Train detectors, evaluate them, judge pictures.")
for command in (train, evaluate, predict, explain, tune, calibrate, export, ensemble, serve, verify_report):
    detect.add_command(command)
