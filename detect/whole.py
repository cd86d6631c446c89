"""A detector made elsewhere sees the whole of a picture or a face, at its own pixels or by its own resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from crossfake.bounds import Bounds, check_bounds
from crossfake.datasets.crops import Cropper
from crossfake.datasets.geometry import Skip
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.view import Indices, View, Windows
from crossfake.errors import UserError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "opencv-linear", "opencv-cubic"]
Side = Annotated[int, Bounds(16, 4096, zero=True)]
FACES = ("face", "square")  # crop policies
LARGEST = 4096  # pixels along a side that a network of any size is given; of more the middle counts

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_OPENCV = {"opencv-linear": cv2.INTER_LINEAR, "opencv-cubic": cv2.INTER_CUBIC}


@dataclass(frozen=True)
class Whole(View):
    """The whole picture, resized and cropped as the detector's authors do; no window of it is chosen.

    It takes images of any size, as a native view does, and is one where an image is cut; what a network sees is one
    square of :attr:`window` pixels, or, without ``resize`` and ``crop``, the image as it is.

    Attributes:
        resize: pixels of the shorter side, or with ``squeeze`` of both; 0 leaves the picture as it is.
        squeeze: a picture that is not square is squeezed into one.
        crop: side of the middle that is kept, with black around where the picture is smaller; 0 keeps all.
        interpolation: Pillow's, which smooth where they make smaller, or OpenCV's, which do not.
        upright: what turns the face of a set's row upright where the detector takes such, and sets are cut otherwise.

    Example:
        >>> Whole("whole", 224, resize=256, crop=224).cut([np.zeros((300, 500, 3), np.uint8)]).images.shape
        (1, 224, 224, 3)
    """

    resize: Side = 0
    squeeze: bool = False
    crop: Side = 0
    interpolation: Interpolation = "bilinear"
    upright: Cropper | None = None

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def native(self) -> bool:
        return True

    @property
    def whole(self) -> bool:
        return True

    @property
    def fixed(self) -> bool:
        """Whether every image becomes one of the same size."""
        return bool(self.crop or (self.resize and self.squeeze))

    def describe(self) -> dict[str, Any]:
        """As a bundle's card has it, which says of faces under ``crop``."""
        return {key: value for key, value in vars(self).items() if key != "upright"}

    def places(self, shape: Sequence[int], count: int | None = None) -> Indices:
        """The one place where all of an image lies, ``[1, 2]``."""
        return np.zeros((1, 2), np.int64)

    def fit(self, image: Pixels) -> Pixels:
        """What the network sees of an image uint8 ``[H, W, 3]``.

        Raises:
            UserError: it is no such image.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UserError(
                f"the detector takes uint8 images [H, W, 3], not {image.dtype} {image.shape}",
                hint="give it pictures",
            )
        height, width = image.shape[:2]
        if self.resize:
            short = self.resize / min(height, width)
            size = (self.resize, self.resize) if self.squeeze else (_side(width, short), _side(height, short))
            image = self._resized(image, size)
        return middle(image, self.crop) if self.crop else image

    def _resized(self, image: Pixels, size: tuple[int, int]) -> Pixels:
        if size == image.shape[1::-1]:
            return image
        if self.interpolation in _OPENCV:
            found: Any = cv2.resize(image, size, interpolation=_OPENCV[self.interpolation])
        else:
            found = np.asarray(Image.fromarray(image).resize(size, _PILLOW[self.interpolation]))
        return np.asarray(found, np.uint8)

    def cut(self, images: Sequence[Pixels], count: int | None = None) -> Windows:
        """Each image as one window; where these have sizes of their own, ``images`` is an array of arrays."""
        seen = [self.fit(image) for image in images]
        if self.fixed:
            shape = (0, self.window, self.window, 3)
            held = np.stack(seen) if seen else np.empty(shape, np.uint8)
        else:
            held = np.empty(len(seen), object)
            for place, image in enumerate(seen):
                held[place] = image[:, :, :] if max(image.shape) <= LARGEST else _limited(image)
        return Windows(held, np.ones(len(seen), np.int64))

    def read(
        self, shards: ShardSet, rows: Indices, count: int | None = None
    ) -> tuple[Pixels | Windows, Indices, list[str]]:
        images, whole, damaged = shards.read_whole(rows) if shards.native else _each(shards, rows)
        if self.upright is not None and not as_they_are(shards):
            images, whole, missed = _turned(self.upright, images, whole, shards)
            damaged += missed
        return self.cut(images), whole, damaged

    def turned(self, images: Sequence[Pixels], shards: ShardSet) -> Sequence[Pixels]:
        """With their faces upright where the detector takes such; one without a face, which some changes hide, is taken
        as it is, for here every row has a score."""
        if self.upright is None or as_they_are(shards):
            return images
        found = []
        for image in images:
            try:
                found.append(self.upright(image))
            except Skip:
                found.append(image)
        return found

    def with_mask(self, image: Pixels, mask: npt.NDArray[np.bool_]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        """What the network sees of a set's row, and where a mask ``[H, W]`` of it lies in that.

        Raises:
            crossfake.datasets.geometry.Skip: there is no face to turn upright.
        """
        drawn = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
        if self.upright is not None:
            crop = self.upright.crops(image, mask=drawn)[0]
            assert crop.mask is not None
            image, drawn = crop.image, crop.mask
        return self.fit(image), self.fit(drawn)[..., 0] > 127

    def check(self, shards: ShardSet, rows: Indices | None = None) -> None:
        """Images of any size go."""


def check_faces(crop: dict[str, Any], shards: ShardSet, force: bool | None) -> None:
    """A detector of faces judges faces however they are cut, and one of pictures anything.

    Args:
        crop: that the detector's card has.
        shards: what is to be judged; a set that does not say how it was cropped is taken.
        force: take whole pictures; None where the user has no such choice.

    Raises:
        UserError: they are pictures, and the detector is of faces.
    """
    held = shards.attributes.get("crop")
    if held and not force and crop.get("policy") in FACES and as_they_are(shards):
        raise UserError(
            f"{shards.path} holds pictures as they are, and the detector looks at faces",
            hint="prepare them with --crop square" + (", or --force" if force is not None else ""),
        )


def as_they_are(shards: ShardSet) -> bool:
    """Whether a set's pictures were cut by nobody here, and ``--force`` has a detector of faces take them so."""
    return (shards.attributes.get("crop") or {}).get("policy", "face") not in FACES


def _turned(
    cropper: Cropper, images: Sequence[Pixels], rows: Indices, shards: ShardSet
) -> tuple[list[Pixels], Indices, list[str]]:
    """The largest face of each image, turned upright; the rows that have one; and of the others what is wrong."""
    found: list[Pixels] = []
    kept: list[int] = []
    missed: list[str] = []
    for row, image in zip(map(int, rows), images, strict=True):
        try:
            found.append(cropper(image))
            kept.append(row)
        except Skip as reason:
            missed.append(f"{shards.path}, row {row}: {reason} to turn upright")
    return found, np.array(kept, np.int64), missed


def middle(image: Pixels, side: int) -> Pixels:
    """The central square ``[side, side, 3]``, placed as torchvision's ``CenterCrop`` does; black beyond the image."""
    height, width = image.shape[:2]
    if min(height, width) < side:
        down, right = max(0, side - height), max(0, side - width)
        image = np.pad(image, ((down // 2, (down + 1) // 2), (right // 2, (right + 1) // 2), (0, 0)))
        height, width = image.shape[:2]
    top, left = round((height - side) / 2), round((width - side) / 2)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _limited(image: Pixels) -> Pixels:
    top, left = (max(0, side - LARGEST) // 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + LARGEST, left : left + LARGEST])


def _side(length: int, scale: float) -> int:
    """As torchvision's ``Resize`` does: the longer side is cut to whole pixels."""
    return max(1, int(round(length * scale, 6)))


def _each(shards: ShardSet, rows: Indices) -> tuple[list[Pixels], Indices, list[str]]:
    """As :meth:`ShardSet.read_whole`, of sets whose images may have any size."""
    images: list[Pixels] = []
    whole: list[int] = []
    damaged: list[str] = []
    for row in map(int, rows):
        try:
            images.append(shards.read(row))
            whole.append(row)
        except UserError as error:
            damaged.append(error.message)
    return images, np.array(whole, np.int64), damaged
