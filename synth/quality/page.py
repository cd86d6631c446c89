"""``quality.html``: the figures in words, spectra, fakes beside their nearest reals, truncation and training curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crossfake.charts import Panel, Series, drawn, nice_ticks
from crossfake.files import write_text
from crossfake.images import contact_sheet
from crossfake.pages import data_uri, environment
from crossfake.runs import Run
from crossfake.synth.quality.earlier import result_file
from crossfake.synth.quality.measures import Comparison
from crossfake.synth.quality.neighbours import nearest
from crossfake.synth.quality.table import figures, head_of, notes, rounded, with_interval

TEMPLATES = Path(__file__).parent / "templates"
_SHOWN, _NEIGHBOURS = 12, 3  # fakes on the sheet, and reals beside each
_MEANING = {
    "fid": "Distance of the two clouds of features; 0 is alike. Depends on n: compare at equal numbers only.",
    "debiased": "Of the distributions: compares across n.",
    "infinity": "The reals stay as many as they are.",
    "mifid": "FID, made larger where fakes lie so near to single reals that they are copies.",
    "kid": "As FID, but without bias, so that it can be compared across numbers of images.",
    "precision": "Share of fakes that look like reals could.",
    "recall": "Share of reals that fakes could be: variety.",
    "density": "How thick the reals are where the fakes lie; may exceed 1.",
    "coverage": "Share of reals that have a fake in their neighbourhood.",
    "lpips": "Mean perceptual distance of two random fakes: variety. That of reals is the mark.",
    "memory": "Perceptual distance of a fake to the real that is nearest; far below that of reals means copies.",
    "swd": "Difference of small patches, at every scale.",
    "spectrum": "Difference of the mean log power over frequencies: traces of up-sampling, blur, noise.",
    "detectability": "Average precision of a small detector trained on half of the images: 0.5 is chance.",
}


def write_page(job: Comparison, result: dict[str, Any]) -> Path:
    """Write the page beside ``quality.json``.

    Args:
        job: what was measured.
        result: as :func:`crossfake.synth.quality.evaluate.evaluate` returns it.
    """
    file = result_file(job.settings).with_suffix(".html")
    sheet = None
    if "nearest" in result:
        _, content = cv2.imencode(".png", _nearest_sheet(job, result["nearest"])[..., ::-1])
        sheet = data_uri(content.tobytes())  # no file: the fakes may be a folder of pictures
    spectrum = result["details"].get("spectrum")
    title, curve = _sweep(result)
    curves = _training(job.settings.fake)
    html = (
        environment(TEMPLATES)
        .get_template("quality.html")
        .render(
            title=job.settings.fake.resolve().name,
            result=result,
            rows=[
                _row(*each) for name, detail in result["details"].items() for each in figures(name, detail)
            ],
            notes=notes(result),
            sheet=sheet,
            charts=[
                *([_spectra(spectrum)] if spectrum else []),
                *([_chart(title, "psi", curve)] if len(curve) > 1 else []),
                *([_chart("Figures over training", "kimg", curves)] if len(curves) > 1 else []),
            ],
        )
    )
    write_text(file, html)
    return file


def _row(name: str, head: str, fakes: dict[str, Any], reals: dict[str, Any]) -> dict[str, str]:
    interval = fakes.get("interval")
    return {
        "name": head,
        "value": rounded(fakes.get("value")),
        "interval": f"{rounded(interval[0])} to {rounded(interval[1])}" if interval else "",
        "reals": with_interval(reals),
        "meaning": _MEANING.get(name, "Distance of the two clouds of another network's features."),
    }


def nearest_rows(job: Comparison) -> dict[str, Any]:
    """Rows of some fakes, and of the reals nearest to each, where features of both were measured."""
    if not job.has_features or len(job.real_rows) < _NEIGHBOURS:
        return {}
    real, fake, _ = job.features()
    rows, _ = nearest(fake[:_SHOWN], real, _NEIGHBOURS)
    return {"nearest": {"fake": job.fake_rows[:_SHOWN].tolist(), "real": job.real_rows[rows].tolist()}}


def _nearest_sheet(job: Comparison, rows: dict[str, Any]) -> Any:
    """A column for each fake, with the reals nearest to it below."""
    pictures = [
        job.fake.read_many(rows["fake"]),
        *(job.real.read_many(each) for each in zip(*rows["real"], strict=True)),
    ]
    return contact_sheet(np.concatenate(pictures), columns=len(rows["fake"]))


def _sweep(result: dict[str, Any]) -> tuple[str, list[dict[str, float]]]:
    """Title and lines of the chart over truncations."""
    lines, head = [], ""
    for point in result.get("sweep", ()):
        found = dict(point)
        head = head_of("fid", {"dims": found.pop("dims", result["settings"]["dims"])})
        found = {head if name == "fid" else name: value for name, value in found.items()}
        lines.extend([found] if len(found) > 1 else [])
    return f"{head} and recall over truncation psi", lines


def _spectra(detail: dict[str, Any]) -> dict[str, Any]:
    curves = {side: detail["decibels"][side]["mean"] for side in ("real", "fake")}
    lines = [
        {"cycles per pixel": x, **dict(zip(curves, y, strict=True))}
        for x, y in zip(detail["cycles_per_pixel"], zip(*curves.values(), strict=True), strict=True)
    ]
    return _chart("Mean log power over frequency, dB", "cycles per pixel", lines, together=True)


def _training(path: Path) -> list[dict[str, float]]:
    """Figures that a run logged on its way."""
    run = Run(path if (path / "log.jsonl").is_file() else path.parent)
    keys = ("kimg", "fid", "swd", "diversity")
    try:
        logged = [{key: line[key] for key in keys if key in line} for line in run.log_lines()]
    except (OSError, ValueError, TypeError):  # another program's log
        return []
    return [line for line in logged if len(line) > 1 and "kimg" in line]


def _chart(
    title: str, over: str, lines: Sequence[dict[str, float]], together: bool = False
) -> dict[str, Any]:
    """Lines of one chart, on one scale or each on its own, whose ends are named."""
    names = [key for key in dict.fromkeys(key for line in lines for key in line) if key != over]
    x = np.array([line[over] for line in lines], float)
    values = {name: np.array([line.get(name, np.nan) for line in lines], float) for name in names}
    every = np.concatenate(list(values.values()))
    series = []
    for color, (name, y) in enumerate(values.items()):
        known = np.isfinite(y)
        low, high = (float(end) for end in (y[known].min(), y[known].max()))
        if not together:
            y = (y - low) / max(high - low, 1e-9)
        legend = f"{name}: {rounded(low)} to {rounded(high)}"
        series.append(
            Series(legend, tuple(x[known].tolist()), tuple(y[known].tolist()), color=color % 8, dots=False)
        )
    ends = float(x.min()), float(x.max())
    scale = (float(np.nanmin(every)), float(np.nanmax(every))) if together else (0.0, 1.0)
    return drawn(
        Panel(
            title,
            "",
            over,
            "",
            tuple(series),
            nice_ticks(*ends),
            (ends, scale),
            "" if together else "Each line has a scale of its own.",
            y_ticks=None if together else (),
        )
    )
