"""From a photo to a square: the crop policies, and the face alignment behind the policy ``face``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from crossfake.datasets.codecs import Pixels
from crossfake.datasets.decode import decode_image
from crossfake.errors import UserError
from crossfake.provenance import hash_file
from crossfake.weights import find_weights

POLICIES = ("face", "center", "none")
GLANCE = 512  # a large JPEG may be decoded at 1/2, 1/4 or 1/8 down to this side
_DETECT_SIDE = 640  # faces are looked for in a copy no larger than this
_ENLARGE_AT_MOST = 2.0
# A picture cut so tightly that a quarter of the crop would be its mirror image shows mirrors, not a face: a
# detector would learn them as the mark of whatever set was cut tightly.
_OUTSIDE_AT_MOST = 0.25


class Skip(Exception):
    """An image that the crop policy leaves out; its text is the reason, the same for all such images."""


@dataclass(frozen=True)
class Cropper:
    """One crop policy, applied alike to real and fake, to training data and to a picture under judgement.

    Attributes:
        size: height and width of the result.
        policy: ``face`` aligns the largest face, ``center`` takes the central square, ``none`` takes the whole
            picture (a picture that is not square is squeezed).
        margin: side of a face crop relative to FFHQ's framing, of a central square relative to the largest one.
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
        largest = {"face": 5.0, "center": 1.0, "none": 1.0}[self.policy]
        if not (0.2 if self.policy != "none" else 1.0) <= self.margin <= largest:
            raise UserError(
                f"a margin of {self.margin} is out of range for --crop {self.policy}",
                mend="leave --margin out"
                if self.policy == "none"
                else f"give --margin between 0.2 and {largest:g}",
            )

    def description(self, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """What two sets must have in common to be comparable: stored with shards and detectors.

        Args:
            before: description of the crop that the images went through already. The centre of aligned faces is
                a face crop of a smaller margin, and said to be one.
        """
        if self.policy == "face":
            return {"policy": "face", "margin": self.margin, "detector": hash_file(self._model_file)[:16]}
        if before is not None and (self.policy == "none" or before.get("policy") == "face"):
            return {**before, "margin": before["margin"] * self.margin} if "margin" in before else before
        return {"policy": self.policy} | ({"margin": self.margin} if self.margin != 1 else {})

    @classmethod
    def from_description(cls, size: int, crop: dict[str, Any], face_model: Path | None = None) -> Cropper:
        """The policy that :meth:`description` stored."""
        return cls(size, str(crop.get("policy", "none")), float(crop.get("margin", 1.0)), face_model)

    def __call__(self, image: Pixels) -> Pixels:
        """uint8 ``[H, W, 3]`` to uint8 ``[size, size, 3]``.

        Raises:
            Skip: there is no face, it would have to be enlarged more than twice, or the picture ends too close
                to it.
        """
        return self._crop(image, _ENLARGE_AT_MOST)

    def open(self, source: Path | bytes, glance: Pixels | None = None) -> Pixels:
        """The crop of a file or its bytes; of a large JPEG no more is decoded than the crop needs.

        Args:
            source: path, or the bytes of a file.
            glance: what ``decode_image(source, at_least=GLANCE)`` gave, if that was called already.

        Raises:
            Skip: as when called with pixels.
            UserError: the file cannot be read.
        """
        enough = max(GLANCE, 4 * self.size)
        if glance is None or GLANCE <= min(glance.shape[:2]) < enough:
            glance = decode_image(source, at_least=enough)
        if min(glance.shape[:2]) < enough:  # so it was not reduced
            return self(glance)
        try:
            return self._crop(glance, enlarge_at_most=1.0)
        except Skip:
            return self(decode_image(source))

    def _crop(self, image: Pixels, enlarge_at_most: float) -> Pixels:
        if self.policy == "face":
            points = self.landmarks(image)
            if points is None or not np.isfinite(points).all():
                raise Skip("no face")
            return align(image, points, self.size, self.margin, enlarge_at_most)
        if self.policy == "center":
            height, width = image.shape[:2]
            side = max(1, round(min(height, width) * self.margin))
            top, left = (height - side) // 2, (width - side) // 2
            image = image[top : top + side, left : left + side]
        return _resize(image, self.size)

    @cached_property
    def _model_file(self) -> Path:
        return find_weights("yunet", self.face_model)

    def landmarks(self, image: Pixels) -> npt.NDArray[np.float64] | None:
        """Right eye, left eye, nose, right and left mouth corner of the largest face, ``[5, 2]`` (x, y) in pixels."""
        height, width = image.shape[:2]
        scale = min(1.0, _DETECT_SIDE / max(height, width))
        extent = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, extent, interpolation=cv2.INTER_AREA) if scale < 1 else image
        detector = _detector(self._model_file)
        detector.setInputSize(extent)
        _, faces = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if faces is None:
            return None
        largest = max(faces, key=lambda face: float(face[2] * face[3]))
        points: npt.NDArray[np.float64] = np.asarray(largest[4:14], np.float64).reshape(5, 2) / scale
        return points


@lru_cache(maxsize=1)
def _detector(model: Path) -> cv2.FaceDetectorYN:
    """One detector per process; a :class:`Cropper` itself is sent to workers with every task."""
    cv2.setNumThreads(1)  # workers are processes already
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns about every model
    try:
        return cv2.FaceDetectorYN.create(str(model), "", (320, 320), 0.6)
    except cv2.error as error:
        raise UserError(f"{model} is not a YuNet model", mend="give another --face-model") from error


def align(
    image: Pixels,
    points: npt.NDArray[np.float64],
    size: int,
    margin: float = 1.0,
    enlarge_at_most: float = _ENLARGE_AT_MOST,
) -> Pixels:
    """Cut the face with landmarks ``[5, 2]`` out of ``[H, W, 3]``, upright: uint8 ``[size, size, 3]``.

    Raises:
        Skip: the face would be enlarged more than ``enlarge_at_most`` times, or a quarter of the crop lies
            outside the picture. What little lies outside is mirrored.
    """
    center, half = face_square(points, margin)
    side = 2 * float(np.hypot(*half))
    if side * enlarge_at_most < size:
        raise Skip("face too small")
    down = np.array([-half[1], half[0]])
    corners = np.array([center - half - down, center + half - down, center - half + down], np.float32)
    if _outside(image, center, half, down) > _OUTSIDE_AT_MOST:
        raise Skip("picture ends too close to the face")
    # shrink by warping to an integer multiple and averaging: a plain warp would alias
    factor = max(1, int(np.ceil(side / size)))
    target = np.array([[0, 0], [1, 0], [0, 1]], np.float32) * (size * factor) - 0.5
    warp = cv2.getAffineTransform(corners, target.astype(np.float32))
    canvas = (size * factor, size * factor)
    large = cv2.warpAffine(image, warp, canvas, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return _resize(np.asarray(large, np.uint8), size)


def _outside(image: Pixels, center: Any, half: Any, down: Any) -> float:
    """Share of the crop's area beyond the edges of the picture, sampled on a grid."""
    steps = (np.arange(32) + 0.5) / 16 - 1
    grid = center + steps[None, :, None] * half + steps[:, None, None] * down
    height, width = image.shape[:2]
    return float(((grid < 0) | (grid > (width, height))).any(axis=2).mean())


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
    """Area-averaged along a side that shrinks, bicubic along one that grows."""
    height, width = image.shape[:2]
    if height > size or width > size:
        reduced = (min(width, size), min(height, size))
        image = np.asarray(cv2.resize(image, reduced, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] != (size, size):
        image = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.ascontiguousarray(image)
