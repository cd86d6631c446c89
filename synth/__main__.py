"""``python -m crossfake.synth`` is the command ``synth``."""

from crossfake.synth.cli import synth

synth()
