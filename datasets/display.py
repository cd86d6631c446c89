"""From a decoded frame to what a player shows: progressive, of standard range, with square pixels, upright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfake.datasets.types import Pixels

HDR, INTERLACED = "hdr", "interlaced"  # codes of frames that could not be brought to the usual form
# ITU-T H.273, tables 3 and 2: PQ and HLG; BT.2020 and the two P3
_HIGH_RANGE, _WIDE_GAMUT = (16, 18), (9, 11, 12)
_UNKNOWN = 2
_FLATTEST = 8.0  # a pixel's width to its height beyond which it is damage
# perceptual: highlights are rolled off, not clipped
_TONES = "out_primaries=bt709:out_transfer=bt709:out_color_matrix=bt709:intent=perceptual"


class Display:
    """Of one stream of an open container; called with its frames."""

    def __init__(self, av: Any, stream: Any) -> None:
        self._av, self._context = av, stream.codec_context
        self._stated, self._first = stream.sample_aspect_ratio, self._context.sample_aspect_ratio
        self._graphs: dict[tuple[object, ...], Any] = {}

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Of frames stored so, once their pixels are square: the side that is too short grows."""
        # a container speaks for the whole stream, until the stream itself changes its mind
        now = self._context.sample_aspect_ratio
        ratio = float((self._stated if now == self._first else now) or 1)
        if not 1 / _FLATTEST <= ratio <= _FLATTEST:
            ratio = 1.0
        return round(width * max(1.0, ratio)), round(height * max(1.0, 1 / ratio))

    def __call__(self, frame: Any) -> tuple[Pixels, tuple[str, ...]]:
        """Pixels uint8 ``[H, W, 3]``, and codes of what could not be done."""
        codes: list[str] = []
        if frame.interlaced_frame:
            frame = self._filtered(frame, "yadif", "deint=all", INTERLACED, codes)
        if frame.color_trc in _HIGH_RANGE or frame.color_primaries in _WIDE_GAMUT:
            given = "in_primaries=bt2020:" if frame.color_primaries == _UNKNOWN else ""
            frame = self._filtered(frame, "scale", given + _TONES, HDR, codes)
        size = self.size(frame.width, frame.height)
        pixels: Pixels
        if size == (frame.width, frame.height):
            pixels = frame.to_ndarray(format="rgb24")
        else:
            pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="BICUBIC")
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return _placed(pixels, np.frombuffer(bytes(matrix), "=i4")) if matrix else pixels, tuple(codes)

    def _filtered(self, frame: Any, name: str, settings: str, code: str, codes: list[str]) -> Any:
        """The frame after one of FFmpeg's filters; as it is, and ``code`` noted, where this FFmpeg cannot do that."""
        key = (name, settings, frame.width, frame.height, frame.format.name)
        try:
            graph = self._graphs.pop(key, None) or self._graph(*key)
            graph.vpush(frame)
            if name == "yadif":  # which would wait for the next frame
                graph.vpush(None)
                return graph.vpull()
            shown = graph.vpull()
        except (self._av.FFmpegError, OSError, ValueError):
            codes.append(code)
            return frame
        self._graphs[key] = graph  # its table of colours takes seconds to make
        return shown

    def _graph(self, name: str, settings: str, width: int, height: int, pixels: str) -> Any:
        graph = self._av.filter.Graph()
        size = f"video_size={width}x{height}:pix_fmt={pixels}"
        source = graph.add("buffer", f"{size}:time_base=1/1:pixel_aspect=1/1")
        graph.link_nodes(source, graph.add(name, settings), graph.add("buffersink")).configure()
        return graph


def _placed(pixels: Pixels, matrix: Sequence[int] | Any) -> Pixels:
    """A phone turns or mirrors the file, not the picture: done here as its display matrix says.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        matrix: nine numbers, by rows; a point ``(x, y)`` goes to ``(ax + cy, bx + dy)``. A slant is rounded to right
            angles.
    """
    a, b, c, d = (int(matrix[at]) for at in (0, 1, 3, 4))
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
