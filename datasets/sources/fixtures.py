"""Drawn faces as files, for the miniatures of published layouts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.datasets.types import Pixels


def face_bytes(number: int, format: str = "JPEG", size: int = 64) -> bytes:
    """Toyface ``number``, ``size`` pixels square, encoded as Pillow names the format."""
    buffer = io.BytesIO()
    Image.fromarray(toyface(number, size)).save(buffer, format)
    return buffer.getvalue()


def write_face(path: Path, number: int, size: int = 64) -> None:
    """Toyface ``number`` in the format that the name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(toyface(number, size)).save(path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_video(path: Path, frames: list[Pixels], rate: int = 25) -> None:
    """H.264 where this build of FFmpeg can, else MPEG-4; width and height must be even."""
    from crossfake.datasets.video import import_av

    av = import_av()
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libx264" if "libx264" in av.codec.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def face_video(path: Path, number: int, frames: int = 12, size: int = 96) -> None:
    """Toyface ``number`` drifting over a grey picture."""
    face = toyface(number, size // 2)
    pictures = []
    for step in range(frames):
        picture = np.full((size, size, 3), 90, np.uint8)
        left = step * (size // 2) // max(frames - 1, 1)
        picture[size // 4 : size // 4 + size // 2, left : left + size // 2] = face
        pictures.append(picture)
    write_video(path, pictures)


def mask_video(path: Path, frames: int = 12, size: int = 96) -> None:
    """White where :func:`face_video` has its face."""
    pictures = []
    for step in range(frames):
        picture = np.zeros((size, size, 3), np.uint8)
        left = step * (size // 2) // max(frames - 1, 1)
        picture[size // 4 : size // 4 + size // 2, left : left + size // 2] = 255
        pictures.append(picture)
    write_video(path, pictures)
