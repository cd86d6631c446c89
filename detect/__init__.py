"""Detectors: models, training, evaluation, prediction.

Example:
    >>> from crossfake.detect import load
    >>> load("runs/detect-cnn")("photo.jpg")  # doctest: +SKIP
    0.93
"""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # not imported above: `detect --help` must not wait for torch
        from crossfake.detect.bundle.bundle import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
