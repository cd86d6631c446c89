"""Score pictures with a detector of native pixels: ``python model.py FACE.png …``, beside its ``model.onnx``.

``detect export`` writes this file next to the ONNX file of such a detector. It needs numpy, Pillow and onnxruntime, and
nothing of crossfake. A picture is a face that is cut out already, upright and at its photo's own pixels, kept without
loss. It is seen through windows on a fixed grid; their logits are averaged and calibrated.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def places(height: int, width: int, window: int, count: int) -> list[tuple[int, int]]:
    """Top and left of up to ``count`` windows on a grid, from the middle outwards; fewer where some would be equal."""
    side = int(np.ceil(np.sqrt(count))) | 1
    shares = np.linspace(0, 1, side) if side > 1 else np.array([0.5])
    grid = [(row, column) for row in shares for column in shares]
    grid.sort(key=lambda at: round((at[0] - 0.5) ** 2 + (at[1] - 0.5) ** 2, 9))
    down, right = height - window, width - window
    corners = [(int(np.round(row * down)), int(np.round(column * right))) for row, column in grid]
    return list(dict.fromkeys(corners))[:count]


def probability(calibration: dict[str, Any], logit: float) -> float:
    """Calibrated probability of being fake."""

    def sigmoid(value: float) -> float:
        return float(np.exp(-np.logaddexp(0, -value)))

    if calibration["method"] == "temperature":
        return sigmoid(logit / calibration["temperature"])
    if calibration["method"] == "beta":
        a, b, c = (calibration[name] for name in "abc")
        return sigmoid(-a * np.logaddexp(0, -logit) + b * np.logaddexp(0, logit) + c)
    return float(np.interp(logit, calibration["logits"], calibration["probabilities"]))


class Model:
    """An exported detector.

    Example:
        >>> model = Model("model.onnx")  # doctest: +SKIP
        >>> model.score("face.png")  # doctest: +SKIP
        0.93
    """

    def __init__(self, path: str | Path) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        card = json.loads(self.session.get_modelmeta().custom_metadata_map["crossfake"])["card"]
        self.window, self.count = int(card["view"]["window"]), int(card["view"]["windows"])
        self.threshold = float(card["threshold"])
        temperature = {"method": "temperature", "temperature": card.get("temperature")}
        self.calibration: dict[str, Any] = card.get("calibration") or temperature

    def score(self, picture: str | Path) -> float:
        """Calibrated probability that a cut-out face is fake.

        Raises:
            ValueError: it is smaller than a window; none is enlarged.
        """
        with Image.open(picture) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        height, width = pixels.shape[:2]
        size = self.window
        if min(height, width) < size:
            raise ValueError(f"{width}×{height} is smaller than the window of {size}")
        corners = places(height, width, size, self.count)
        windows = np.stack([pixels[y : y + size, x : x + size] for y, x in corners])
        logits = self.session.run(["logit"], {"images": windows})[0]
        return probability(self.calibration, float(logits.astype(np.float64).mean()))


def main(pictures: list[str]) -> int:
    """A line per picture: its score, and whether that is from the threshold on."""
    if not pictures:
        print("name pictures of cut-out faces", file=sys.stderr)
        return 2
    model, failed = Model(Path(__file__).with_suffix(".onnx")), 0
    for name in pictures:
        try:
            score = model.score(name)
        except (OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 2
            continue
        print(f"{score:.6f} {'fake' if score >= model.threshold else 'real'} {name}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
