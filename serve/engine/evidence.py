"""Why a detector says what it says: the heat map, the spectrum, the training pictures that are most alike; and what
stands beside every verdict without asking a detector: maps of a picture, key frames of a video.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from crossfake.datasets.decode import Copies, Unreadable
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.datasets.video import read_keyframes
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.explain.traces import MOST_PIXELS, TraceMap, trace_maps
from crossfake.detect.verdict import LABELS
from crossfake.errors import UserError
from crossfake.images import fitted
from crossfake.serve.engine.results import Example, KeyFrame
from crossfake.serve.intake.accepting import Upload

_NEAREST = 6
SHOWN = 512  # pixels of a crop on the page and in reports, and of its map
_SOON = (
    "The training pictures to compare with are still being looked up: analyse the picture again in a moment."
)
_KEY_FRAMES = 6
_T = TypeVar("_T")


def traces(upload: Upload, copies: Copies) -> tuple[TraceMap, ...]:
    """Maps of a picture in its own pixels, which a reduced copy no longer has; none of one that is too large."""
    return trace_maps(copies.decode().pixels) if upload.width * upload.height <= MOST_PIXELS else ()


def key_frames(upload: Upload) -> tuple[KeyFrame, ...]:
    """What a video stores whole, for a reverse search; empty where none of it can be decoded by itself."""
    try:
        return tuple(
            KeyFrame(frame.seconds, frame.pixels)
            for frame in read_keyframes(upload.path, _KEY_FRAMES, "the video")
        )
    except Unreadable:
        return ()


class Evidence:
    """What explains one detector's verdicts; references are made once, when they are first asked for.

    Args:
        alike: find the training pictures that are most alike: strangers' faces.
    """

    def __init__(self, detector: Detector, alike: bool = False) -> None:
        self._detector, self._alike = detector, alike
        self._lock = threading.Lock()
        self._looking_up = False

    def warm_up(self, crops: Sequence[Pixels], features: npt.NDArray[np.float32]) -> None:
        """Explain once, then make the references; who asks meanwhile is answered without them, and told so."""
        self._looking_up = True
        try:
            self.of(crops, features)
            self._references([])
        finally:
            self._looking_up = False

    def _references(self, notes: list[str]) -> tuple[Any, Any]:
        without = "The spectrum is shown without that of real pictures"
        spectra = _try(lambda: self._spectra, without, notes)
        if not self._alike:
            return spectra, None
        return spectra, _try(lambda: self._prototypes, "Known pictures that are alike are not shown", notes)

    def of(self, crops: Sequence[Pixels], features: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """Fields of :class:`~crossfake.serve.engine.results.FaceAnalysis` for each crop; what is missing is noted.

        Args:
            crops: uint8 ``[S, S, 3]`` each, of a native view ``[H, W, 3]``.
            features: float32 ``[N, F]``, as :meth:`Detector.outputs` gave them.
        """
        from crossfake.detect.explain.pictures import spectrum_panels
        from crossfake.detect.explain.spectrum import log_spectrum
        from crossfake.detect.explain.windows import middle
        from crossfake.detect.whole import middle as square

        notes: list[str] = []
        with self._lock:
            maps = _try(lambda: self._maps(crops), "There is no heat map", notes)
            if self._looking_up:
                notes.append(_SOON)
                spectra, prototypes = None, None
            else:
                spectra, prototypes = self._references(notes)
        found = []
        for number, crop in enumerate(crops):
            one: dict[str, Any] = {"notes": tuple(notes)}
            if maps is not None:
                one |= {"heatmap": maps[0][number], "heat": maps[1][number], "heat_method": maps[2]}
            part = middle(self._detector.view, crop)
            if part.shape[0] != part.shape[1]:  # a published detector may see a picture of any shape
                part = square(part, min(part.shape[:2]))
            seen = spectra.explain(part) if spectra else {"spectrum": log_spectrum(part)}
            one["spectrum"] = spectrum_panels(seen["spectrum"], seen.get("difference"))
            if prototypes is not None:
                one["nearest"] = _examples(prototypes, prototypes.nearest(features[number], _NEAREST))
            found.append(one)
        return found

    def _maps(self, crops: Sequence[Pixels]) -> tuple[list[Pixels], list[npt.NDArray[np.float32]], str]:
        from crossfake.detect.explain.methods import METHODS, pick
        from crossfake.detect.explain.pictures import overlay, strengths
        from crossfake.detect.explain.windows import maps_of, middle

        if self._detector.view.whole:  # shown as the network sees it
            crops = [middle(self._detector.view, crop) for crop in crops]
        name = pick(self._network, self._detector.size)
        kind = METHODS.get(name).kind
        charts = [fitted(chart, SHOWN) for chart in maps_of(self._network, self._detector.view, crops, name)]
        overlays = [
            overlay(fitted(crop, SHOWN), chart, kind) for crop, chart in zip(crops, charts, strict=True)
        ]
        return overlays, [strengths(chart, kind) for chart in charts], name

    @cached_property
    def _network(self) -> Any:
        """A copy: explanations hook into layers, and another thread may be scoring with the original."""
        return copy.deepcopy(self._detector.network)

    @cached_property
    def _sets(self) -> list[ShardSet]:
        from crossfake.detect.explain.references import open_sets

        return open_sets((), self._detector)

    @cached_property
    def _spectra(self) -> Any:
        from crossfake.detect.explain.spectrum import Spectra

        return Spectra.of(self._detector, self._sets)

    @cached_property
    def _prototypes(self) -> Any:
        from crossfake.detect.explain.prototypes import Prototypes

        return Prototypes.of(self._detector, self._sets)


def _try(make: Callable[[], _T], without: str, notes: list[str]) -> _T | None:
    try:
        return make()
    except UserError as error:  # a package or the training pictures are not there
        notes.append(f"{without}: {_without_paths(error)}.")
    except (OSError, ValueError, KeyError):  # shards that are damaged or half gone
        notes.append(f"{without}: the training pictures cannot be read.")
    return None


def _without_paths(error: UserError) -> str:
    """Why, without the folders of this machine."""
    return "the training pictures are not here" if "/" in error.message else error.message


def _examples(prototypes: Any, found: dict[str, Any]) -> tuple[Example, ...]:
    rows: Sequence[int] = found["nearest"].tolist()
    return tuple(
        Example(prototypes.images[row], LABELS[int(label)], str(name), float(1 - alike))
        for row, label, name, alike in zip(
            rows, found["labels"], found["names"], found["similarity"], strict=True
        )
    )
