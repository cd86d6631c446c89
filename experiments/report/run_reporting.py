"""One HTML page per training run: samples over time, every logged curve, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.charts import Panel, Series, drawn, nice_ticks
from crossfake.errors import UserError
from crossfake.experiments.report.reporting import TEMPLATES, environment_text
from crossfake.files import write_text
from crossfake.pages import duration, environment, picture
from crossfake.runs import Run

_SHEETS = 4  # sample sheets on the page, the last among them
_WINDOW = 9  # logged values in a running median
_TITLES = {
    "loss_g": (
        "Generator's loss",
        "What it is trained to lower; flat is normal while both networks improve.",
    ),
    "loss_d": (
        "Discriminator's loss",
        "Falling to zero means that it tells all fakes: the generator learns little.",
    ),
    "loss": ("Loss", ""),
    "sign_real": ("Reals taken for real", "1 is all of them, -1 none: the r_t that ADA steers by."),
    "sign_fake": ("Fakes taken for real", "-1 for long is a discriminator that always wins."),
    "r1": ("R1", "Squared gradient of the discriminator at reals."),
    "r2": ("R2", "Squared gradient of the discriminator at fakes."),
    "augment_p": ("Augmentation p", ""),
    "path_length": ("Path length", ""),
    "diversity": ("Diversity of the samples", "Relative to the reals; near zero is collapse."),
    "fid": ("FID", "Lower is better."),
    "swd": ("Sliced Wasserstein ×10³", "Lower is better."),
    "spectrum": ("Power spectrum, dB", "Lower is better."),
    "real": ("Logit of reals", ""),
    "fake": ("Logit of fakes", ""),
    "auc": ("Validation AUC", ""),
    "val_auc": ("Validation AUC", ""),
    "val_loss": ("Validation loss", ""),
    "sec_per_kimg": ("Seconds per kimg", ""),
}
_HIDDEN = ("step", "kimg", "epoch", "eta_min", "path_penalty")


def run_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, finished or not; returns it.

    Raises:
        UserError: the folder holds no run.
    """
    run = Run(Path(folder))
    if not run.config_file.is_file():
        raise UserError(
            f"{folder} holds no run", hint="name a folder that 'synth train' or 'detect train' wrote"
        )
    file = run.path / "report.html"
    write_text(file, environment(TEMPLATES).get_template("run.html").render(**_page(run)))
    return file


def _page(run: Run) -> dict[str, Any]:
    config, lines = run.config, run.log_lines()
    unit = next((key for key in ("kimg", "epoch") if lines and key in lines[-1]), "step")
    keys = dict.fromkeys(
        key for line in lines for key, value in line.items() if isinstance(value, int | float)
    )
    charts = [
        _chart(lines, unit, key)
        for key in [*_TITLES, *(k for k in keys if k not in _TITLES)]
        if key in keys and key not in _HIDDEN and (key, "loss_g" in keys) != ("loss", True)
    ]
    family = config.get("family") or config.get("model") or ""
    return {
        "name": run.path.resolve().name,
        "kind": f"Training of {family}" + ("" if run.finished else ", not finished"),
        "lead": _lead(config, lines, unit),
        "sheets": _sheets(run),
        "charts": [chart for chart in charts if chart],
        "unit": unit,
        "config": run.config_file.read_text(),
        "environment": environment_text(run.path),
    }


def _lead(config: dict[str, Any], lines: Sequence[dict[str, Any]], unit: str) -> str:
    if not lines:
        return "Nothing has been logged yet."
    words = [f"{lines[-1][unit]:g} {unit}"]
    if "images" in config:
        words.append(f"on {config['images']:,} images of {config.get('size', '?')} pixels")
    rates = [(line["kimg"], line["sec_per_kimg"]) for line in lines if "sec_per_kimg" in line]
    if rates:
        kimg = np.diff([0.0, *(at for at, _ in rates)])
        words.append(f"in {duration(float(kimg @ [rate for _, rate in rates]))}")
    return " ".join(words) + "."


def _sheets(run: Run) -> list[dict[str, Any]]:
    """The reals, sheets evenly over the training, and the film of all."""
    numbered = sorted((run.path / "samples").glob("[0-9]*.png"))
    kept = sorted({round(at) for at in np.linspace(0, len(numbered) - 1, _SHEETS)}) if numbered else []
    named = [("Reals", ", for comparison.", "samples/reals.png")]
    named += [(f"{float(numbered[k].stem):g} kimg", "", f"samples/{numbered[k].name}") for k in kept]
    sheets = [{"title": title, "text": text, "image": picture(run.path, file)} for title, text, file in named]
    film = picture(run.path, "training.gif")
    sheets.append({"title": "Film", "text": " of the whole training.", "image": film})
    return [sheet for sheet in sheets if sheet["image"]]


def _chart(lines: Sequence[dict[str, Any]], unit: str, key: str) -> dict[str, Any] | None:
    """One logged value, thin, and its running median; None where it was logged fewer than twice."""
    points = [(line[unit], line[key]) for line in lines if key in line and unit in line]
    x, y = np.array(points, float).reshape(-1, 2).T
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 2:
        return None
    # a few values far out, as in the first steps, would press all others flat
    low, high = np.quantile(y, [0.01, 0.99]) if len(y) > 50 else (y.min(), y.max())
    spread = (high - low) or max(abs(high), 1.0)
    low, high = float(low - 0.05 * spread), float(high + 0.05 * spread)
    half = _WINDOW // 2
    median = np.array([np.median(y[max(0, k - half) : k + half + 1]) for k in range(len(y))])
    curve, logged = (tuple(np.clip(values, low, high).tolist()) for values in (median, y))
    series = Series("", tuple(x.tolist()), curve, thin=(logged,), color=1, dots=False)
    title, text = _TITLES.get(key, (key.replace("_", " "), ""))
    ends = float(x[0]), float(x[-1])
    return drawn(
        Panel(title, f"{y[-1]:.3g}", unit, "", (series,), nice_ticks(*ends, 5), (ends, (low, high)), text)
    )
