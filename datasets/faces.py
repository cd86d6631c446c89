"""From a photo to a square: the crop policies, and the face alignment behind the policy ``face``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from crossfake.datasets.codecs import Pixels
from crossfake.errors import UserError
from crossfake.provenance import hash_file
from crossfake.weights import find_weights

POLICIES = ("face", "center", "none")
_DETECT_SIDE = 640  # faces are looked for in a copy no larger than this
_ENLARGE_AT_MOST = 2.0


class Skip(Exception):
    """An image that the crop policy leaves out; its text is the reason, the same for all such images."""


@dataclass(frozen=True)
class Cropper:
    """One crop policy, applied alike to real and fake, to training data and to a picture under judgement.

    Attributes:
        size: height and width of the result.
        policy: ``face`` aligns the largest face, ``center`` takes the largest central square, ``none`` takes the
            whole picture (a picture that is not square is squeezed).
        margin: side of a face crop relative to FFHQ's framing.
        face_model: YuNet's ONNX file; found by :func:`crossfake.weights.find_weights` when None.

    Example:
        >>> Cropper(size=8, policy="center")(np.zeros((20, 10, 3), np.uint8)).shape
        (8, 8, 3)
    """

    size: int
    policy: str = "face"
    margin: float = 1.0
    face_model: Path | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UserError(
                f"there is no crop policy {self.policy!r}", mend=f"choose one of {', '.join(POLICIES)}"
            )
        if not 0.2 <= self.margin <= 5:
            raise UserError(
                f"a margin of {self.margin} is out of range", mend="give --margin between 0.2 and 5"
            )

    def description(self) -> dict[str, Any]:
        """What two sets must have in common to be comparable: stored with shards and detectors."""
        if self.policy != "face":
            return {"policy": self.policy}
        return {"policy": "face", "margin": self.margin, "detector": hash_file(self._model_file)[:16]}

    @classmethod
    def from_description(cls, size: int, crop: dict[str, Any], face_model: Path | None = None) -> Cropper:
        """The policy that :meth:`description` stored."""
        return cls(size, str(crop.get("policy", "none")), float(crop.get("margin", 1.0)), face_model)

    def __call__(self, image: Pixels) -> Pixels:
        """uint8 ``[H, W, 3]`` to uint8 ``[size, size, 3]``.

        Raises:
            Skip: there is no face, or it would have to be enlarged more than twice.
        """
        if self.policy == "face":
            return self._align(image)
        if self.policy == "center":
            height, width = image.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            image = image[top : top + side, left : left + side]
        return _resize(image, self.size)

    @cached_property
    def _model_file(self) -> Path:
        return find_weights("yunet", self.face_model)

    @cached_property
    def _detector(self) -> cv2.FaceDetectorYN:
        cv2.setNumThreads(1)  # workers are processes already
        try:
            return cv2.FaceDetectorYN.create(str(self._model_file), "", (320, 320), 0.6)
        except cv2.error as error:
            raise UserError(
                f"{self._model_file} is not a YuNet model", mend="give another --face-model"
            ) from error

    def landmarks(self, image: Pixels) -> npt.NDArray[np.float64] | None:
        """Right eye, left eye, nose, right and left mouth corner of the largest face, ``[5, 2]`` (x, y) in pixels."""
        height, width = image.shape[:2]
        scale = min(1.0, _DETECT_SIDE / max(height, width))
        small = (
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        )
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        _, faces = self._detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if faces is None:
            return None
        largest = max(faces, key=lambda face: float(face[2] * face[3]))
        return largest[4:14].reshape(5, 2).astype(np.float64) / scale

    def _align(self, image: Pixels) -> Pixels:
        points = self.landmarks(image)
        if points is None or not np.isfinite(points).all():
            raise Skip("no face")
        center, half = face_square(points, self.margin)
        side = 2 * float(np.hypot(*half))
        if side * _ENLARGE_AT_MOST < self.size:
            raise Skip("face too small")
        # shrink by warping to an integer multiple and averaging: a plain warp would alias
        factor = max(1, int(np.ceil(side / self.size)))
        down = np.array([-half[1], half[0]])
        corners = np.array([center - half - down, center + half - down, center - half + down], np.float32)
        target = np.array([[0, 0], [1, 0], [0, 1]], np.float32) * (self.size * factor) - 0.5
        warp = cv2.getAffineTransform(corners, target.astype(np.float32))
        canvas = (self.size * factor, self.size * factor)
        large = cv2.warpAffine(image, warp, canvas, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return _resize(large, self.size)


def face_square(points: npt.NDArray[np.float64], margin: float = 1.0) -> tuple[Any, Any]:
    """Centre of the face crop, and the vector from there to the middle of its right-hand edge.

    The framing of FFHQ (Karras et al. 2019, app. A): the crop is turned with the eyes and the axis from eyes to
    mouth, as wide as 4 eye distances or 3.6 eye-mouth distances, and centred a tenth below the eyes.
    """
    right_eye, left_eye, _, right_mouth, left_mouth = points
    eyes, mouth = (right_eye + left_eye) / 2, (right_mouth + left_mouth) / 2
    across, down = left_eye - right_eye, mouth - eyes
    direction = across + np.array([down[1], -down[0]])  # both say where the face's left is
    half = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down)) * margin
    return eyes + 0.1 * down, direction / max(float(np.hypot(*direction)), 1e-9) * half


def _resize(image: Pixels, size: int) -> Pixels:
    """Area-averaged when shrinking, bicubic when enlarging."""
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    shrinks = min(image.shape[:2]) > size
    resized: Any = cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return np.ascontiguousarray(resized, dtype=np.uint8)
