"""``detect``: train detectors, evaluate them, judge pictures."""

from __future__ import annotations

from crossfake.cli import command_group
from crossfake.detect.commands.evaluate import evaluate
from crossfake.detect.commands.predict import predict
from crossfake.detect.commands.train import train

detect = command_group("detect", "Train detectors, evaluate them, judge pictures.")
for command in (train, evaluate, predict):
    detect.add_command(command)
