"""What pictures, boxes and outlines are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # of one picture [H, W, 3] or several [N, H, W, 3], sRGB
Box = tuple[float, float, float, float]  # x, y, width, height in pixels
Polygons = tuple[npt.NDArray[np.float32], ...]  # each [corners, 2], (x, y) in pixels
