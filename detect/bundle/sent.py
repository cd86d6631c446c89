"""A detector on its way to the workers of a Ray cluster."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from crossfake.cluster import Sent, computing
from crossfake.detect.bundle import bundle
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.bundle.portable import OnnxNetwork
from crossfake.errors import UserError
from crossfake.executor import Demand
from crossfake.options import Precision


@dataclass(frozen=True)
class SentDetector:
    """What a worker opens a detector from; it scores as the one that was sent, on a device of the worker's own.

    Attributes:
        folder: the bundle.
        device: of the workers: ``auto``, ``cpu`` or ``cuda``.
        precision: as of the detector that was sent.
        windows: likewise.
    """

    folder: Sent
    device: str
    precision: Precision
    windows: int | None

    @classmethod
    def of(cls, detector: Detector, device: str) -> SentDetector:
        """Send a detector to the cluster that is connected.

        Raises:
            UserError: it runs by ONNX Runtime, whose file may be anywhere.
        """
        if isinstance(detector.network, OnnxNetwork):
            raise UserError("Ray's workers judge with torch", hint="leave --backend out, or --executor")
        # Ray deals the GPUs
        return cls(Sent(detector.path), device.partition(":")[0], detector.precision, detector.windows)

    @property
    def demand(self) -> Demand:
        """What Ray keeps free for it."""
        return computing(self.device)

    def open(self) -> Detector:
        """On a worker: the detector, opened once."""
        return _opened(self)


@functools.lru_cache(maxsize=1)
def _opened(sent: SentDetector) -> Detector:
    return bundle.load(sent.folder.there(), sent.device, sent.precision, windows=sent.windows)
