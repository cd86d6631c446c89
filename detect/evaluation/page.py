"""What an evaluation shows: pictures, contact sheets, and ``evaluation.html`` with all of it on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfake.datasets.shards import ShardSet
from crossfake.detect.evaluation import pictures, sheets
from crossfake.files import write_text
from crossfake.images import save_png
from crossfake.pages import environment, picture

if TYPE_CHECKING:
    from crossfake.detect.evaluation.evaluate import Scored

TEMPLATES = Path(__file__).parent / "templates"
PICTURES = ("roc", "pr", "det", "calibration", "confusion")
SHEETS = ("mistakes", "predictions")
# name in the result, heading, what it says
FIGURES = (
    ("auc", "AUC", "How often a fake scores higher than a real; 0.5 is chance."),
    ("ap", "Average precision", "Area under precision over recall. Chance is the share of fakes here"),
    ("partial_auc", "Partial AUC, up to 10% FPR", "AUC where false alarms are few, scaled so that 0.5 is chance."),
    ("eer", "Equal error rate", "Where false alarms and misses are equally frequent; lower is better."),
    ("tpr_at_1%_fpr", "TPR at 1% FPR", "Fakes found when at most 1 real in 100 raises a false alarm."),
    ("tpr_at_0.1%_fpr", "TPR at 0.1% FPR", "The same at 1 in 1,000."),
    ("accuracy", "Accuracy", "Images called right at the detector's threshold."),
    ("accuracy_at_half", "Accuracy at 0.5", "The same at a probability of one half."),
    ("oracle_accuracy", "Accuracy, oracle threshold", "The best on these very images: a bound, not a result."),
    ("balanced_accuracy", "Balanced accuracy", "Mean of the shares of reals and of fakes called right."),
    ("precision", "Precision", "Fakes among what is called fake; depends on the share of fakes here."),
    ("recall", "Recall", "Fakes that are called fake."),
    ("f1", "F1", "Harmonic mean of precision and recall."),
    ("mcc", "MCC", "Correlation of verdict and truth, −1 to 1."),
    ("ece", "Calibration error", "Mean gap between the probability given and the share of fakes; lower is better."),
    ("brier", "Brier score", "Mean squared error of the probability; lower is better."),
)  # a table  # fmt: skip
_PARTS = {
    "auc": "AUC",
    "ap": "AP",
    "eer": "EER",
    "tpr_at_1%_fpr": "TPR, 1% FPR",
    "accuracy": "Accuracy",
    "recall": "Recall",
    "mcc": "MCC",
    "ece": "ECE",
}
_KINDS = (
    ("by_source", "Per source", "Images of one source. Ranking figures need both classes."),
    ("by_generator", "Per generator", "Fakes of one generator against all reals."),
    (
        "by_group",
        "Per group",
        "One score per person or source photo, pooled from its images of a class; quantile is 0.9.",
    ),
    ("by_video", "Per video", "One score per video, pooled from its frames; quantile is 0.9."),
)


def show(out: Path, result: dict[str, Any], scored: Scored, sets: Sequence[ShardSet], seed: int) -> None:
    """Write pictures (where both classes are there), sheets and the page into ``out``."""
    for name in (*PICTURES, *SHEETS):
        (out / f"{name}.png").unlink(missing_ok=True)  # of an earlier evaluation
    reals, generator = scored.labels == 0, scored.columns["generator"]
    threshold = float(result["threshold"])
    if 0 < reals.sum() < len(reals):
        names = np.unique(generator[~reals])
        first = "all fakes" if len(names) > 1 else str(names[0]) or "fakes"
        parts = {first: (scored.labels, scored.scores)}
        for name in names if len(names) > 1 else ():
            keep = reals | (generator == name)
            parts[str(name) or "unnamed"] = (scored.labels[keep], scored.scores[keep])
        pictures.roc_picture(parts, out / "roc.png", result["overall"]["intervals"])
        pictures.pr_picture(parts, out / "pr.png")
        pictures.det_picture(parts, out / "det.png")
        pictures.calibration_picture(scored.labels, scored.scores, threshold, out / "calibration.png")
        pictures.confusion_picture(result["overall"]["confusion"], threshold, out / "confusion.png")
    judged = sheets.Judged(
        scored.labels,
        scored.scores,
        np.where(generator != "", generator, scored.columns["source"]),
        threshold,
        lambda place: sets[int(scored.folder[place])].read(int(scored.row[place])),
    )
    save_png(sheets.predictions_sheet(judged, seed=seed), out / "predictions.png")
    if (sheet := sheets.mistakes_sheet(judged)) is not None:
        save_png(sheet, out / "mistakes.png")
    write_text(out / "evaluation.html", page(out, result))


def page(out: Path, result: dict[str, Any]) -> str:
    """The page as HTML, with the pictures that lie in ``out`` inside it."""
    overall = result["overall"]
    parts = [
        {"title": title, "says": says, "rows": [_row(name, part) for name, part in result[key].items()]}
        for key, title, says in _KINDS
        if result[key]
    ]
    return (
        environment(TEMPLATES)
        .get_template("evaluation.html")
        .render(
            result=result,
            overall=overall,
            figures=[
                {
                    "title": title,
                    "value": _value(overall, name),
                    "interval": _interval(overall, name),
                    "says": says + (f", {_value(overall, 'ap_chance')}." if name == "ap" else ""),
                }
                for name, title, says in FIGURES
            ],
            heads=list(_PARTS.values()),
            parts=parts,
            forest=_forest(result["by_generator"]),
            pictures={name: picture(out, f"{name}.png") for name in (*PICTURES, *SHEETS)},
        )
    )


def _row(name: str, part: dict[str, Any]) -> dict[str, Any]:
    cells = [
        {
            "value": _value(part, figure),
            "interval": _interval(part, figure),
            "chance": _value(part, "ap_chance") if figure == "ap" and part["ap_chance"] else "",
        }
        for figure in _PARTS
    ]
    return {"name": name or "unnamed", "n_real": part["n_real"], "n_fake": part["n_fake"], "cells": cells}


def _forest(parts: dict[str, Any]) -> dict[str, Any] | None:
    """AUC of each generator as a dot on its interval, the worst first, in percent of the track."""
    known = {name: part for name, part in parts.items() if part["auc"] is not None}
    if len(known) < 2:
        return None
    ends = [end for part in known.values() for end in (part["auc"], *part["intervals"].get("auc", ()))]
    start = min(0.5, np.floor(min(ends) * 10) / 10)

    def place(value: float) -> float:
        return round(100 * (value - start) / (1 - start), 2)

    rows = []
    for name, part in sorted(known.items(), key=lambda item: item[1]["auc"]):
        low, high = part["intervals"].get("auc", (part["auc"], part["auc"]))
        rows.append(
            {
                "name": name or "unnamed",
                "n": part["n_fake"],
                "value": part["auc"],
                "interval": _interval(part, "auc"),
                "low": place(low),
                "mid": place(part["auc"]),
                "high": place(high),
            }
        )
    every = 1 if start >= 0.4 else 2  # tenths: on a phone there is room for seven labels
    ticks = [(place(tick), f"{tick:.1f}") for tick in np.arange(10, round(start * 10) - 1, -every)[::-1] / 10]
    return {"rows": rows, "ticks": ticks, "chance": place(0.5)}


def _value(part: dict[str, Any], name: str) -> str:
    return "–" if part[name] is None else f"{part[name]:.3f}"


def _interval(part: dict[str, Any], name: str) -> str:
    pair = part["intervals"].get(name)
    return f"{pair[0]:.3f} to {pair[1]:.3f}" if pair else ""
