"""The result as files: ``audit.json`` for programs, and one page that needs nothing else, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from crossfake.datasets.audit import pixels
from crossfake.datasets.audit.features import NAMES, Facts
from crossfake.datasets.audit.probes import table_of
from crossfake.datasets.audit.report import Audit, printable
from crossfake.datasets.audit.results import FAIL, PASS, WARN, Probe
from crossfake.datasets.audit.settings import CLASSES
from crossfake.errors import UserError
from crossfake.files import write_json, write_text
from crossfake.pages import data_uri, environment, plural

JSON, HTML = "audit.json", "audit.html"
_BINS = 24
_STRIP = 16  # pictures of each class
_MEANS = ("thumbnail", "surroundings")  # probes shown as mean pictures


@dataclass(frozen=True)
class ProbePicture:
    """What one probe saw, drawn: bars of shares, a histogram of one measure, or two mean pictures.

    Attributes:
        shares: rows (name, share of reals, share of fakes) of measures that are yes or no.
        bins: pairs of heights in [0, 1], reals and fakes.
        ends: the histogram's first and last value, in words.
        label: what is counted.
        means: data addresses of two mean pictures.
    """

    shares: list[tuple[str, float, float]] = field(default_factory=list)
    bins: list[tuple[float, float]] = field(default_factory=list)
    ends: tuple[str, str] = ("", "")
    label: str = ""
    means: list[str] = field(default_factory=list)


def write(result: Audit, facts: Sequence[Facts], out: Path) -> None:
    """Write both files.

    Raises:
        UserError: the folder cannot be written.
    """
    page = render(result, facts)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / JSON, result.as_dict())
        write_text(out / HTML, page)
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror or error})", hint="name another --out"
        ) from error


def render(result: Audit, facts: Sequence[Facts]) -> str:
    """The page: pictures are inside it, nothing is fetched, and names cannot break out of their place."""
    from markupsafe import Markup

    def visible(value: object) -> object:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    pages = environment(Path(__file__).parent / "templates")
    pages.lstrip_blocks, pages.finalize = True, visible
    corrupt = next((check.figures for check in result.checks if check.key == "corrupt"), {})
    by_verdict = {
        word: [found for found in result.results if found.verdict == word] for word in (FAIL, WARN, PASS)
    }
    return pages.get_template("audit.html").render(
        audit=result,
        headline=_headline(result, len(by_verdict[FAIL]), len(by_verdict[WARN])),
        by_verdict=by_verdict,
        figures={probe.key: figure_of(probe, facts) for probe in result.probes},
        strips=[(name, _strip(facts, label)) for label, name in enumerate(CLASSES)],
        picture=lambda row: data_uri(facts[row].shown, "jpeg"),
        name=lambda row: facts[row].name,
        side=lambda row: CLASSES[facts[row].label],
        corrupt=corrupt,
        counted=plural,
        first_upper=lambda text: text[:1].upper() + text[1:],
        data=result.as_dict(),
    )


def _headline(result: Audit, failed: int, warned: int) -> str:
    if failed:
        return "These two sets can be told apart without looking for forgery"
    if warned:
        return "Nothing fails, but there is something to look at"
    return "Nothing but forgery was found to tell these sets apart"


def figure_of(probe: Probe, facts: Sequence[Facts]) -> ProbePicture | None:
    """What to draw for a probe; None when it saw no difference."""
    values, have = table_of(facts, probe.key)
    labels = np.array([facts[row].label for row in have], np.int64)
    if not probe.telling or len(np.unique(labels)) < 2:
        return None
    if probe.key in _MEANS:
        return ProbePicture(means=[_mean_picture(values[labels == label]) for label in (0, 1)])
    column = values[:, NAMES[probe.key].index(probe.telling)]
    known = ~np.isnan(column)
    if np.isin(column[known], (0, 1)).all():
        return ProbePicture(shares=_shares(probe.key, values, labels))
    low, high = np.quantile(column[known], (0.005, 0.995))
    if low == high:
        low, high = column[known].min(), column[known].max()
    edges = np.linspace(low, high, _BINS + 1)
    counts = []
    for label in (0, 1):
        of_class = column[known & (labels == label)].clip(low, high)
        counts.append(np.histogram(of_class, edges)[0] / max(1, len(of_class)))
    top = max(float(side.max()) for side in counts) or 1.0
    heights = [(float(real / top), float(fake / top)) for real, fake in zip(*counts, strict=True)]
    return ProbePicture(bins=heights, ends=(f"{low:.4g}", f"{high:.4g}"), label=probe.telling)


def _shares(
    key: str, values: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> list[tuple[str, float, float]]:
    """Yes-or-no measures that differ between the classes, the most different first."""
    rows = []
    for name, column in zip(NAMES[key], values.T, strict=True):
        if np.isin(column, (0, 1)).all():
            real, fake = (float(column[labels == label].mean()) for label in (0, 1))
            if real != fake:
                rows.append((name, real, fake))
    return sorted(rows, key=lambda row: -abs(row[1] - row[2]))[:6]


def _mean_picture(values: npt.NDArray[np.float32]) -> str:
    mean = values[:, : pixels.GRID**2 * 3].mean(axis=0).reshape(pixels.GRID, pixels.GRID, 3)
    _, encoded = cv2.imencode(".png", cv2.cvtColor((mean * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2BGR))
    return data_uri(bytes(encoded))


def _strip(facts: Sequence[Facts], label: int) -> list[tuple[str, str]]:
    """Name and address of pictures evenly spread over a class."""
    rows = [row for row, fact in enumerate(facts) if fact.label == label]
    chosen = sorted({rows[int(k)] for k in np.linspace(0, len(rows) - 1, min(_STRIP, len(rows)))})
    return [(facts[row].name, data_uri(facts[row].shown, "jpeg")) for row in chosen]
