"""``python -m crossfake.detect`` is the command ``detect``."""

from crossfake.detect.cli import detect

detect()
