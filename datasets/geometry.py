"""Cutting squares out of pictures: where they lie, how they are sampled, and when that is not possible."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from crossfake.datasets.faces import Points, draw_mask
from crossfake.datasets.types import (
    Box,
    Pixels,
    Polygons,
)
from crossfake.images import thumbnail

FFHQ_MARGIN = 1.3  # FFHQ's framing in units of the face: what FaceForensics++ calls a factor of 1.3 around it
ENLARGE_AT_MOST = 2.0
# A picture cut so tightly that a quarter of the crop would be its mirror image shows mirrors, not a face: a
# detector would learn them as the mark of whatever set was cut tightly. So it is left out, unless asked for.
OUTSIDE_AT_MOST = 0.25
TOO_CLOSE = "picture ends too close to the face"
_PICTURE = 112  # pixels


class Skip(Exception):
    """An image that the crop policy leaves out; its text is the reason, the same for all such images.

    Attributes:
        picture: a small copy of a video's frame, to show what was left out.
        room: of a picture that ends too close to the face, how many times as large the crop may be for it not to;
            0 where no crop would do.
    """

    def __init__(self, reason: str, picture: Pixels | None = None, room: float = 0.0) -> None:
        super().__init__(reason)
        self.picture = None if picture is None else thumbnail(picture, _PICTURE, background=200)
        self.room = room


def cut_square(
    image: Pixels, center: Any, half: Any, size: int, enlarge: float = ENLARGE_AT_MOST, edge: str = "skip"
) -> Pixels:
    """A square at any angle out of ``[H, W, 3]``: uint8 ``[size, size, 3]``.

    Args:
        image: the picture.
        center: its middle, (x, y) in pixels.
        half: the vector from there to the middle of its right-hand edge.
        size: height and width of the result.
        enlarge: how many times it may be enlarged.
        edge: what lies outside the picture is mirrored; ``skip`` allows that for a quarter of the square,
            ``reflect`` for any share.

    Raises:
        Skip: it would be enlarged more than that, or too much of it lies outside.
    """
    side = 2 * float(np.hypot(*half))
    if side * enlarge < size:
        raise Skip("face too small")
    if edge == "skip" and outside(image, center, half) > OUTSIDE_AT_MOST:
        wide = room(image, center, half)
        raise Skip(TOO_CLOSE, room=wide if side * wide * enlarge >= size else 0.0)
    down = np.array([-half[1], half[0]])
    corners = np.array([center - half - down, center + half - down, center - half + down], np.float32)
    # shrink by warping to an integer multiple and averaging: a plain warp would alias
    factor = max(1, int(np.ceil(side / size)))
    target = np.array([[0, 0], [1, 0], [0, 1]], np.float32) * (size * factor) - 0.5
    warp = cv2.getAffineTransform(corners, target.astype(np.float32))
    canvas = (size * factor, size * factor)
    large = cv2.warpAffine(image, warp, canvas, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return resize(np.asarray(large, np.uint8), size)


def cut_upright(image: Pixels, center: Any, half: Any) -> Pixels:
    """What of the upright square of that middle and side lies within the picture, its own pixels, ``[h, w, 3]``.

    The square is at whole pixels and nothing is resampled; it may be empty.
    """
    side = max(1, round(2 * float(np.hypot(*half))))
    left, top = (round(float(at) - side / 2) for at in center)
    return image[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]


def outside(image: Pixels, center: Any, half: Any) -> float:
    """Share of the crop's area beyond the edges of the picture, sampled on a grid."""
    grid = center + _grid(half)
    height, width = image.shape[:2]
    return float(((grid < 0) | (grid > (width, height))).any(axis=2).mean())


def room(image: Pixels, center: Any, half: Any) -> float:
    """How many times the side of the crop may be for a quarter of its area to lie outside; 0 when its middle does."""
    edges = np.array(image.shape[1::-1], np.float64)
    if not ((center >= 0) & (center <= edges)).all():
        return 0.0
    grid = _grid(half)
    with np.errstate(divide="ignore", invalid="ignore"):  # how far each point may move away from the middle
        reach = np.where(grid > 0, (edges - center) / grid, np.where(grid < 0, -center / grid, np.inf))
    leaves = np.sort(reach.min(axis=2), axis=None)
    return float(leaves[int(OUTSIDE_AT_MOST * leaves.size)])


def _grid(half: Any) -> Any:
    """Offsets from the middle of a crop, ``[32, 32, 2]``, evenly over its area."""
    down = np.array([-half[1], half[0]])
    steps = (np.arange(32) + 0.5) / 16 - 1
    return steps[None, :, None] * half + steps[:, None, None] * down


def face_square(points: Points, margin: float = FFHQ_MARGIN) -> tuple[Any, Any]:
    """Centre of the aligned crop, and the vector from there to the middle of its right-hand edge.

    With a margin of 1.3 the framing of FFHQ (Karras et al. 2019, app. A): the crop is turned with the eyes and the
    axis from eyes to mouth, as wide as 4 eye distances or 3.6 eye-mouth distances, and centred a tenth below the eyes.
    """
    right_eye, left_eye, _, right_mouth, left_mouth = points
    eyes, mouth = (right_eye + left_eye) / 2, (right_mouth + left_mouth) / 2
    across, down = left_eye - right_eye, mouth - eyes
    direction = across + np.array([down[1], -down[0]])  # both say where the face's left is
    half = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down)) * (margin / FFHQ_MARGIN)
    return eyes + 0.1 * down, direction / max(float(np.hypot(*direction)), 1e-9) * half


def box_square(box: Box, margin: float = FFHQ_MARGIN) -> tuple[Any, Any]:
    """The upright square around a box, ``margin`` times its longer side (Rössler et al. 2019 use 1.3)."""
    x, y, width, height = box
    return np.array([x + width / 2, y + height / 2]), np.array([max(width, height) / 2 * margin, 0.0])


def rounded_box(box: Box, image: Pixels) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box, rounded, with at least one pixel of the picture in it."""
    x, y, width, height = box
    left, top = (min(max(0, round(at)), side - 1) for at, side in ((x, image.shape[1]), (y, image.shape[0])))
    right, bottom = min(round(x + width), image.shape[1]), min(round(y + height), image.shape[0])
    return left, top, max(right, left + 1), max(bottom, top + 1)


def drawn_mask(mask: Pixels | Polygons | None, image: Pixels) -> Pixels | None:
    """A mask as pixels of the picture's own size."""
    height, width = image.shape[:2]
    if mask is None or (isinstance(mask, np.ndarray) and mask.shape[:2] == (height, width)):
        return mask
    if isinstance(mask, tuple):
        return draw_mask(mask, height, width)
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def middle_square(image: Pixels, margin: float) -> Pixels:
    """The central square of ``[H, W, 3]``, ``margin`` times as wide as the largest one."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * margin))
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize(image: Pixels, size: int) -> Pixels:
    """Area-averaged along a side that shrinks, bicubic along one that grows."""
    height, width = image.shape[:2]
    if height > size or width > size:
        reduced = (min(width, size), min(height, size))
        image = np.asarray(cv2.resize(image, reduced, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] != (size, size):
        image = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.ascontiguousarray(image)
