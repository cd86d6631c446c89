"""Faces in a picture: found by YuNet, measured, chosen, and followed through a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from crossfake.datasets.types import (
    Box,
    Pixels,
    Polygons,
)
from crossfake.errors import UserError

_DETECT_SIDE = 640  # faces are looked for in a copy no larger than this
# The largest face alone is looked for in a smaller copy first. Its landmarks move by 0.08 eye distances (median of 360
# photos), as they do by any change of scale: 0.07 when a photo shrinks by 6%.
GLANCE_SIDE, _GLANCE_FACE, _GLANCE_CONFIDENCE = 256, 64, 0.8
_NOSE_DEPTH = (
    0.45  # how far an adult's nose stands out, in eye distances: anthropometric averages, 28 of 63 mm
)
_LEAST_OVERLAP = 0.2

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        points: right eye, left eye, nose, right and left mouth corner, ``[5, 2]`` (x, y) in pixels; NaN when only
            the box is known.
        box: x, y, width and height in pixels.
        confidence: YuNet's score in [0, 1]. It falls with whatever hides a face (hands, masks, profile), and is the
            nearest to an occlusion score that five landmarks give.
    """

    points: Points
    box: Box
    confidence: float = 1.0

    @property
    def side(self) -> float:
        """The longer side of the box, in pixels."""
        return max(self.box[2], self.box[3])

    @property
    def yaw(self) -> float:
        """How far the head is turned, in degrees, from the nose's shift between the eyes; 0 looks at the camera.

        An estimate for filtering, good to about ten degrees, for a nose of average length.
        """
        right, left, nose = self.points[:3]
        across = left - right
        shift = float((nose - (right + left) / 2) @ across / max(float(across @ across), 1e-9))
        return float(np.rad2deg(np.arctan2(shift, _NOSE_DEPTH)))

    def sharpness(self, image: Pixels) -> float:
        """Variance of the Laplacian of the face, scaled to 128 pixels, grey in [0, 255]; below 20 or so is blurred."""
        x, y, width, height = (round(value) for value in self.box)
        cut = image[max(0, y) : max(1, y + height), max(0, x) : max(1, x + width)]
        if not cut.size:
            return 0.0
        grey = cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY)
        filtered = cv2.INTER_AREA if min(cut.shape[:2]) > 128 else cv2.INTER_LINEAR
        return float(cv2.Laplacian(cv2.resize(grey, (128, 128), interpolation=filtered), cv2.CV_64F).var())

    def scaled(self, scale: float) -> Face:
        """The same face in the picture enlarged by ``scale``."""
        x, y, width, height = self.box
        return Face(
            self.points * scale, (x * scale, y * scale, width * scale, height * scale), self.confidence
        )


def find_faces(image: Pixels, model: Path, threshold: float = 0.6, largest_only: bool = False) -> list[Face]:
    """Faces in uint8 ``[H, W, 3]``, the largest first.

    Args:
        image: RGB pixels.
        model: YuNet's ONNX file.
        threshold: least confidence.
        largest_only: smaller ones may be left out: quicker where there is a large one.

    Raises:
        UserError: the file is no YuNet model.
    """
    if largest_only and max(image.shape[:2]) > GLANCE_SIDE:
        faces = _found(image, model, threshold, GLANCE_SIDE)
        least = _GLANCE_FACE * max(image.shape[:2]) / GLANCE_SIDE
        if faces and faces[0].side >= least and faces[0].confidence >= _GLANCE_CONFIDENCE:
            return faces
    return _found(image, model, threshold, _DETECT_SIDE)


def _found(image: Pixels, model: Path, threshold: float, side: int) -> list[Face]:
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    extent = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, extent, interpolation=cv2.INTER_AREA) if scale < 1 else image
    detector = _detector(model, threshold)
    detector.setInputSize(extent)
    _, found = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    rows = [] if found is None else [row.astype(np.float64) for row in found if np.isfinite(row).all()]
    faces = [
        Face(row[4:14].reshape(5, 2), (row[0], row[1], row[2], row[3]), float(row[14])).scaled(1 / scale)
        for row in rows
    ]
    return sorted(faces, key=lambda face: -face.box[2] * face.box[3])


@lru_cache(maxsize=2)
def _detector(model: Path, threshold: float) -> cv2.FaceDetectorYN:
    """One detector per process; settings alone are sent to workers with every task."""
    cv2.setNumThreads(1)  # workers are processes already
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns about every model
    try:
        return cv2.FaceDetectorYN.create(str(model), "", (320, 320), threshold)
    except cv2.error as error:
        raise UserError(f"{model} is not a YuNet model", hint="give another --face-model") from error


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1.

    Example:
        >>> overlap((0, 0, 2, 2), (1, 0, 2, 2))
        0.3333333333333333
    """
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / (one[2] * one[3] + other[2] * other[3] - shared))


def marked_face(faces: Sequence[Face], box: Box) -> Face | None:
    """The face that a data set's own box means, or None when none overlaps it enough."""
    best = max(faces, key=lambda face: overlap(face.box, box), default=None)
    return best if best is not None and overlap(best.box, box) >= _LEAST_OVERLAP else None


def mask_box(mask: Pixels) -> Box | None:
    """The box around what is bright in a mask ``[H, W, 3]``; None when nothing is."""
    rows, columns = np.nonzero(mask[..., 0] > 127)
    if not len(rows):
        return None
    left, top = float(columns.min()), float(rows.min())
    return left, top, float(columns.max()) - left + 1, float(rows.max()) - top + 1


def draw_mask(polygons: Polygons, height: int, width: int) -> Pixels:
    """Polygons as a mask uint8 ``[H, W, 3]``: 255 inside, 0 outside."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32) for corners in polygons], 255)
    return np.repeat(mask[:, :, None], 3, axis=2)


def track(frames: Sequence[Sequence[Face]]) -> list[list[int]]:
    """Which person each face of each frame is: numbers from 0, in the order of first appearance.

    Each frame's faces are assigned to the tracks so that the sum of distances is least (Hungarian method). The
    distance is that of the centres in face widths, since frames may be seconds apart and boxes need not overlap;
    more than one and a half widths, or a size that doubles, is another person.
    """
    last: list[Face] = []
    numbers: list[list[int]] = []
    for faces in frames:
        cost = np.array([[_distance(face, old) for old in last] for face in faces]).reshape(
            len(faces), len(last)
        )
        rows, columns = linear_sum_assignment(np.minimum(cost, 1e3))
        assigned: dict[int, int] = {
            int(row): int(column)
            for row, column in zip(rows, columns, strict=True)
            if cost[row, column] <= 1.5
        }
        here = []
        for index, face in enumerate(faces):
            if index not in assigned:
                assigned[index] = len(last)
                last.append(face)
            last[assigned[index]] = face
            here.append(assigned[index])
        numbers.append(here)
    return numbers


def _distance(one: Face, other: Face) -> float:
    if not 0.5 <= one.side / max(other.side, 1e-9) <= 2:
        return float("inf")
    center: Any = [np.array([f.box[0] + f.box[2] / 2, f.box[1] + f.box[3] / 2]) for f in (one, other)]
    return float(np.hypot(*(center[0] - center[1])) / ((one.side + other.side) / 2))
