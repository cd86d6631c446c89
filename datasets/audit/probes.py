"""The probes: simple models asked to tell real from fake by what has nothing to do with forgery."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.audit import learning
from crossfake.datasets.audit.features import NAMES, Facts
from crossfake.datasets.audit.results import CANNOT_TELL, FAIL, NOT_RUN, PASS, WARN, Probe
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.stats.ranking import auc

_FILE = "file"  # needs the bytes of a file
_FACE = "face"  # needs the face detector
_NATIVE = "native"  # needs crops at their photos' own pixels


@dataclass(frozen=True)
class ProbeKind:
    """A probe before it is run: what it reads, with which model, and what helps."""

    key: str
    name: str
    looks_at: str
    found: str  # completes "told apart by …"
    needs: str = ""
    linear: bool = False
    match: str = ""  # what to do where laundering does not help
    caution: str = ""


_MATCH = (
    "laundering cannot remove this: collect other reals, or fakes made from the same sources as the reals"
)
_FRAMING = (
    "laundering gives both classes the same framing; light and backgrounds that differ after it need other reals, "
    "or fakes made from the same sources as the reals"
)
_FROM_FILES = (
    "shards keep what was done to their pixels before: launder the files that they were made from with "
    "'crossfake data launder'"
)
PROBES = (
    ProbeKind(
        "format", "file format", "file type, colour mode, progressive, name", "the file format alone", _FILE
    ),
    ProbeKind(
        "jpeg",
        "JPEG quality",
        "quantisation tables and subsampling, of JPEG files",
        "JPEG compression alone",
        _FILE,
    ),
    ProbeKind(
        "bytes", "bytes per pixel", "file size for its pixels", "the file's size for its pixels alone", _FILE
    ),
    ProbeKind(
        "blocks",
        "8×8 blocks",
        "traces of a JPEG grid in the pixels",
        "the trace of a JPEG grid alone",
        caution="smooth pictures show it more, and a generator that doubles its size step by step leaves a grid, too",
    ),
    ProbeKind("size", "size", "width, height, aspect ratio", "the picture's size alone"),
    ProbeKind(
        "spectrum",
        "resampling",
        "where the power spectrum falls off, its slope and upper half",
        "the power spectrum alone",
        caution="it may also see the generator's own fingerprint, which is no fault of the data",
    ),
    ProbeKind(
        "scale",
        "scale",
        "traces of interpolation in native pixels: how strong, and of which factor",
        "an earlier resampling alone",
        _NATIVE,
        match="native crops keep what was done to their photos: take photos and fakes that were never resized, or "
        "were resized alike",
        caution="a generator that doubles its size step by step interpolates, too",
    ),
    ProbeKind(
        "clipped",
        "clipped edges",
        "how much of native crops their photos' edges cut off",
        "how often and how far crops end at the edge of their photos",
        _NATIVE,
        match="give both classes a smaller --margin, or --edge skip",
    ),
    ProbeKind(
        "colours",
        "brightness and colour",
        "means, contrast and extremes of the colours",
        "colour statistics alone",
        match=_MATCH,
        caution="a generator's own colours are seen here too",
    ),
    ProbeKind(
        "thumbnail",
        "8×8 thumbnail",
        "the picture at 8×8 pixels: framing, light, background",
        "a picture of 64 pixels",
        linear=True,
        match=_FRAMING,
    ),
    ProbeKind(
        "surroundings",
        "background",
        "what is around the face, the face hidden",
        "the background, without the face",
        _FACE,
        linear=True,
        match=_MATCH,
    ),
    ProbeKind(
        "faces",
        "face and crop",
        "face detector's score, number, size and place of faces",
        "how faces are cropped, without looking at them",
        _FACE,
        caution="a poor generator's faces are found less surely, too",
    ),
    ProbeKind(
        "edges",
        "mirrored edges",
        "how much of each edge mirrors what is inside it",
        "how often and how far crops reach beyond their photos",
    ),
    ProbeKind(
        "metadata", "metadata", "EXIF, ICC, XMP, comments, thumbnails, JFIF density", "metadata alone", _FILE
    ),
)


def run_probes(facts: Sequence[Facts], settings: AuditSettings, has_face_model: bool) -> list[Probe]:
    """Every probe on the pictures that could be read; both classes have at least one."""
    labels = np.array([fact.label for fact in facts], np.int64)
    groups = np.unique([fact.group for fact in facts], return_inverse=True)[1]
    fold = learning.folds(labels, groups, settings.seed)
    native = any("clipped" in fact.values for fact in facts)
    kinds = [kind for kind in PROBES if native or kind.needs != _NATIVE]
    return [_run(kind, facts, labels, groups, fold, settings, has_face_model) for kind in kinds]


def table_of(facts: Sequence[Facts], key: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Measures ``[N, D]`` of one probe and the numbers of the pictures that have them."""
    have = [number for number, fact in enumerate(facts) if key in fact.values]
    if not have:
        return np.zeros((0, len(NAMES[key])), np.float32), np.zeros(0, np.int64)
    return np.stack([facts[number].values[key] for number in have]), np.array(have, np.int64)


def _run(
    kind: ProbeKind,
    facts: Sequence[Facts],
    labels: learning.Labels,
    groups: npt.NDArray[Any],
    fold: npt.NDArray[np.int64],
    settings: AuditSettings,
    has_face_model: bool,
) -> Probe:
    def result(verdict: str, meaning: str, auc: float | None, n: int = 0, hint: str = "") -> Probe:
        low, high = (0.5, 0.5) if auc is not None else (0.0, 1.0)
        return Probe(
            kind.key,
            kind.name,
            kind.looks_at,
            auc,
            low,
            high,
            n,
            verdict,
            meaning,
            hint,
            launder=not kind.match,
        )

    if kind.needs == _FACE and not has_face_model:
        return result(
            NOT_RUN,
            "YuNet's weights are not there, so no face was looked for",
            None,
            hint="see 'crossfake doctor' for where they come from, or give --face-model",
        )
    values, have = table_of(facts, kind.key)
    counts = np.bincount(labels[have], minlength=2)
    if kind.needs == _FILE and not any(fact.is_file for fact in facts):
        return result(PASS, "no difference: pixels only, there are no files to read", 0.5, len(facts))
    if not counts.all():
        return result(*_nothing_to_compare(kind, facts, counts), 0)
    found = learning.separation(values, labels[have], groups[have], fold[have], kind.linear, settings.seed)
    verdict = verdict_of(found, settings)
    best, worded = telling(values, labels[have], kind.key)
    meaning = _meaning(kind, found, verdict, worded)
    hint = _hint(kind, facts, settings) if verdict in (WARN, FAIL) else ""
    return Probe(
        kind.key,
        kind.name,
        kind.looks_at,
        found.auc,
        found.low,
        found.high,
        found.n,
        verdict,
        meaning,
        hint,
        NAMES[kind.key][best] if worded else "",
        not kind.match,
    )


def _nothing_to_compare(
    kind: ProbeKind, facts: Sequence[Facts], counts: Any
) -> tuple[str, str, float | None]:
    """Verdict, sentence and AUC where one class or both have nothing that the probe could read."""
    pixels_only = [not any(fact.is_file for fact in facts if fact.label == label) for label in (0, 1)]
    if kind.needs == _FILE and any(pixels_only):
        name = _named(pixels_only)
        return NOT_RUN, f"the {name} are pixels without files, so files cannot be compared", None
    name = _named([not count for count in counts])
    if kind.needs == _NATIVE:
        return NOT_RUN, f"the {name} are no native crops, so these cannot be compared", None
    if kind.key == "jpeg":
        return PASS, f"no difference: no JPEG files among the {name}; see file format", 0.5
    return NOT_RUN, f"the face fills the picture in all {name}", None


def _named(chosen: Sequence[bool]) -> str:
    return " and ".join(name for name, is_it in zip(("reals", "fakes"), chosen, strict=True) if is_it)


def verdict_of(found: learning.Separation, settings: AuditSettings) -> str:
    """``fail`` or ``warn`` when the interval lies above the threshold, else ``pass`` or ``cannot tell``.

    It cannot tell when a class has fewer than eight groups, or when the interval reaches from guessing (0.5) to the
    threshold of failing: such data excludes neither that nothing is wrong nor that everything is.
    """
    if found.low == found.high == 0.5:
        return PASS
    if min(found.groups) < learning.LEAST_GROUPS:
        return CANNOT_TELL
    if found.low > settings.fail:
        return FAIL
    if found.low > settings.warn:
        return WARN
    return CANNOT_TELL if found.low <= 0.5 and found.high >= settings.fail else PASS


def telling(values: npt.NDArray[np.float32], labels: learning.Labels, key: str) -> tuple[int, str]:
    """The measure that alone separates the classes best, and how they differ in it, in words."""
    areas = []
    for column in values.T:
        known = ~np.isnan(column)
        both = len(np.unique(labels[known])) == 2
        areas.append(abs(auc(labels[known], column[known]) - 0.5) if both else 0.0)
    best = int(np.argmax(areas))
    if areas[best] < 0.02:
        return best, ""
    name = NAMES[key][best]
    known = ~np.isnan(values[:, best])
    sides = [values[known & (labels == label), best] for label in (0, 1)]
    if all(np.isin(side, (0, 1)).all() for side in sides):
        shares = [_percent(float(side.mean())) for side in sides]
        return best, f"{name}: {shares[0]} of reals, {shares[1]} of fakes"
    middles = [_figure(float(np.median(side))) for side in sides]
    if middles[0] == middles[1]:
        spreads = ["–".join(_figure(float(v)) for v in np.quantile(side, (0.05, 0.95))) for side in sides]
        return best, f"{name}: {spreads[0]} in reals, {spreads[1]} in fakes"
    return best, f"{name}: median {middles[0]} in reals, {middles[1]} in fakes"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) or 0.01 <= share <= 0.99 else f"{share:.1%}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _meaning(kind: ProbeKind, found: learning.Separation, verdict: str, worded: str) -> str:
    detail = f" ({worded})" if worded else ""
    if verdict == CANNOT_TELL:
        reals, fakes = found.groups
        return f"too few to say: {reals:,} independent reals, {fakes:,} independent fakes"
    if found.low == found.high == 0.5:
        return "no difference at all"
    if verdict == PASS:
        return "little or no difference" + (detail if found.low > 0.5 else "")
    caution = f"; {kind.caution}" if kind.caution else ""
    return f"told apart by {kind.found}{detail}{caution}"


def _hint(kind: ProbeKind, facts: Sequence[Facts], settings: AuditSettings) -> str:
    if kind.match:
        return kind.match
    return launder_command(settings) if all(fact.is_file for fact in facts) else _FROM_FILES


def launder_command(settings: AuditSettings) -> str:
    """The command that gives both classes the same files, sizes and compression."""
    sources = [f"--real {shlex.quote(word)}" for word in settings.real]
    sources += [f"--fake {shlex.quote(word)}" for word in settings.fake]
    return f"crossfake data launder {' '.join(sources)} --out DIR"
