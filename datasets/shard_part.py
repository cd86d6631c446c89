"""Reading rows of one shard, quicker than by HDF5's own way."""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py
import numpy as np

from crossfake.datasets.types import Pixels


class Part:
    """One open shard, ready for reading rows.

    Raw pixels are read as HDF5 stored them, by whole chunks, and checked against the row's CRC: a fifth of the time
    that HDF5's own way takes.
    """

    def __init__(self, file: h5py.File, codec: str) -> None:
        self._file = file  # HDF5 closes it with the last that knows it
        self._crc = file["crc32"][:]
        self._checked = np.zeros(len(self._crc), bool)
        self._codec = codec
        self._data = file["image" if "image" in file else "blob"]
        self._end = None if "image" in file else file["end"][:].astype(np.int64)
        self._shapes = file["shape"][:].astype(np.int64) if "shape" in file else None

    def _native(self, row: int, first: int, last: int) -> Pixels:
        """Lines ``first`` to ``last`` of a native row of codec ``raw``, flat, as HDF5 stored them."""
        assert self._end is not None and self._shapes is not None
        line, step = 3 * int(self._shapes[row, 1]), self._data.chunks[0]
        begin = int(self._end[row - 1]) if row else 0
        start, end = begin + first * line, begin + last * line
        parts = []
        for at in range(start // step * step, end, step):
            _, chunk = self._data.id.read_direct_chunk((at,))
            parts.append(np.frombuffer(chunk, np.uint8, step)[max(0, start - at) : end - at])
        return np.concatenate(parts)

    def window(self, row: int, top: int, left: int, size: int) -> Pixels:
        """Part of a native row of codec ``raw``, uint8 ``[size, size, 3]``: only its lines are read from the file.

        The CRC is of the whole row, so it is checked when a process reads from the row for the first time.
        """
        if not self._checked[row]:
            lines = self.stored(row)[top : top + size]
        else:
            lines = self._native(row, top, top + size).reshape(size, -1, 3)
        return np.ascontiguousarray(lines[:, left : left + size])

    def stored(self, row: int) -> Any:
        """Pixels of codec ``raw``, else the blob's bytes; ``OSError`` when they are not what was written."""
        if self._codec != "raw":
            assert self._end is not None
            start = int(self._end[row - 1]) if row else 0
            return self._data[start : int(self._end[row])].tobytes()
        if self._shapes is not None:
            shape, pixels = (*self._shapes[row], 3), self._native(row, 0, int(self._shapes[row, 0]))
        else:
            _, chunk = self._data.id.read_direct_chunk((row, 0, 0, 0))
            shape = self._data.shape[1:]
            pixels = np.frombuffer(chunk, np.uint8, math.prod(shape))  # a checksum of HDF5's follows them
        if zlib.crc32(pixels.data) != self._crc[row]:
            raise OSError("the checksum differs")
        self._checked[row] = True
        owned = pixels if self._shapes is not None else pixels.copy()  # bytes cannot be written to
        return owned.reshape(shape)
