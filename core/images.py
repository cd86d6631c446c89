"""The two conversions that every picture passes: to uint8, once, and into a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.errors import UserError

Images = npt.NDArray[np.uint8]
_CAPTION = 13  # pixels: one line of PIL's built-in font


def to_uint8(images: Any, low: float = -1.0) -> Images:
    """Round and clamp a network's output to bytes: the only place where that happens.

    Args:
        images: torch tensor ``[N, 3, H, W]`` in ``[low, 1]``, any float dtype and device.
        low: what black is, -1 for generators and 0 for images in ``[0, 1]``.

    Returns:
        uint8 ``[N, H, W, 3]``, contiguous.
    """
    import torch

    bytes_ = (images.float() - low).mul_(255.0 / (1.0 - low)).round_().clamp_(0, 255).to(torch.uint8)
    array: Images = bytes_.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def contact_sheet(images: Images, columns: int | None = None, pad: int = 2) -> Images:
    """Tile images ``[N, H, W, 3]`` row by row onto a white sheet ``[H', W', 3]``, ``pad`` pixels apart.

    Example:
        >>> contact_sheet(np.zeros((6, 8, 8, 3), np.uint8), columns=3, pad=1).shape
        (19, 28, 3)
    """
    count, height, width, _ = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = pad + index // columns * (height + pad), pad + index % columns * (width + pad)
        sheet[top : top + height, left : left + width] = image
    return sheet


def thumbnail(image: Images, side: int, background: int = 255) -> Images:
    """The whole picture ``[H, W, 3]`` scaled to fit the middle of a square ``[side, side, 3]``.

    Example:
        >>> thumbnail(np.zeros((20, 10, 3), np.uint8), 8)[4, :, 0].tolist()
        [255, 255, 0, 0, 0, 0, 255, 255]
    """
    import cv2

    height, width = image.shape[:2]
    scale = side / max(height, width)
    extent = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = np.full((side, side, 3), background, np.uint8)
    top, left = (side - extent[1]) // 2, (side - extent[0]) // 2
    square[top : top + extent[1], left : left + extent[0]] = cv2.resize(
        image, extent, interpolation=cv2.INTER_AREA
    )
    return square


def fitted(image: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """A picture ``[H, W, 3]`` or a map ``[H, W]``, made smaller where a side is longer than ``most``; never enlarged.

    Example:
        >>> fitted(np.zeros((20, 10, 3), np.uint8), 8).shape, fitted(np.zeros((4, 6)), 8).shape
        ((8, 4, 3), (4, 6))
    """
    import cv2

    height, width = image.shape[:2]
    scale = most / max(height, width)
    if scale >= 1:
        return image
    extent = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, extent, interpolation=cv2.INTER_AREA)


def captioned_sheet(images: Images, captions: Sequence[str], columns: int | None = None) -> Images:
    """A contact sheet of ``[N, H, W, 3]`` with its caption under every image, in as many lines as the longest takes.

    Example:
        >>> captioned_sheet(np.zeros((2, 40, 60, 3), np.uint8), ["one", "two"]).shape
        (57, 126, 3)
    """
    from PIL import Image, ImageDraw

    count, height, width, _ = images.shape
    wrapped = [_wrapped(caption, width - 2) for caption in captions]
    text = _CAPTION * max(map(len, wrapped))
    cells = np.full((count, height + text, width, 3), 255, np.uint8)
    for cell, image, lines in zip(cells, images, wrapped, strict=True):
        cell[:height] = image
        below = Image.new("RGB", (width, text), "white")
        for number, line in enumerate(lines):
            ImageDraw.Draw(below).text((1, 1 + number * _CAPTION), line, fill="black")
        cell[height:] = np.asarray(below)
    return contact_sheet(cells, columns)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of PIL's built-in font no wider than so many pixels, broken at blanks, and within words that are wider."""
    from PIL import ImageFont

    length = ImageFont.load_default().getlength
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and length(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and length(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def save_png(image: Images, path: Path) -> None:
    """Write one image ``[H, W, 3]`` as PNG; a full disk or a bad path is a ``UserError``."""
    from PIL import Image

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, format="PNG")
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error})", hint="check the folder and its space"
        ) from error
