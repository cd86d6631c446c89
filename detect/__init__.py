"""Detectors: models, training, evaluation, prediction.

Example:
    >>> from crossfake.detect import load
    >>> load("runs/detect-cnn")("photo.jpg")  # doctest: +SKIP
    0.93
"""

from crossfake.detect.bundle import load

__all__ = ["load"]
