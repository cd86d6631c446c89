"""The numbers of an experiment as files: CSV, Parquet and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.detect.evaluation import metrics
from crossfake.errors import MissingDependency
from crossfake.experiments.design.protocols import ELSEWHERE
from crossfake.experiments.report.charts import Heat, heat
from crossfake.experiments.report.comparing import Difference, Finding
from crossfake.experiments.report.results import FIGURES, NOT_KNOWN, PRIMARY, Results, scores_name
from crossfake.pages import HALF_INTERVAL
from crossfake.provenance import hash_file
from crossfake.stats.intervals import Estimate

Rows = list[dict[str, Any]]
# In points: the line of LaTeX's article, and in its footnotesize a letter, a figure with its ±, two parentheses.
_LINE, _LETTER, _VALUE, _PARENTHESES, _GAP = 345.0, 4.1, 43.0, 6.6, 5.0
_MEAN = "Mean, unseen"
_DIGITS = 6
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "[": "{[}", "*": "{*}",
    "|": r"\textbar{}", '"': "''", "–": "--", "—": "---", "−": "$-$", "×": r"$\times$",
    "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "…": r"\ldots{}", "“": "``", "”": "''", "‘": "`", "’": "'",
    "²": r"$^2$", "³": r"$^3$", "→": r"$\to$", "\u00a0": "~", "\n": " ",
}  # a table  # fmt: skip


def cell_rows(results: Results) -> Rows:
    """One line per cell and test, with the hashes it came from: the content of ``results.csv``.

    ``resamples`` is how many the intervals of this report come from; nothing else on the line depends on it.
    """
    rows = []
    for cell in results.cells:
        card = cell.card
        for name, test in results.tests.items():
            labels, scores = results.truths[name].labels, cell.scores[name]
            figures = metrics.summary(labels, scores, cell.threshold)
            (tn, fp), (fn, tp) = metrics.confusion(labels, scores, cell.threshold)
            changed = test["perturbation"] or {"name": "", "strength": ""}
            rows.append(
                {
                    "detector": cell.detector,
                    "condition": cell.condition,
                    "seed": cell.seed,
                    "test": name,
                    "fake": test["fake"],
                    "real": test["real"],
                    "perturbation": changed["name"],
                    "strength": changed["strength"],
                    "seen": ""
                    if cell.detector in results.given
                    else int(results.is_seen(cell.condition, name)),
                    **{
                        key: "" if math.isnan(value) else round(value, _DIGITS)
                        for key, value in figures.items()
                    },
                    "tn": tn,
                    "fp": fp,
                    "fn": fn,
                    "tp": tp,
                    "n_real": test["n_real"],
                    "n_fake": test["n_fake"],
                    "ap_chance": round(results.by_chance(name, "ap"), _DIGITS),
                    "threshold": cell.threshold,
                    "seconds": card["seconds"],
                    "joules": card.get("energy") or "",
                    "key": cell.key,
                    "scores": scores_name(test),
                    "scores_sha256": hash_file(cell.scores_file(test)),
                    "test_hash": test["hash"],
                    "train_hash": card["train_hash"],
                    "model_hash": card["model_hash"],
                    "commit": card.get("commit") or "",
                    "version": card.get("version") or "",
                    "resamples": results.resamples,
                }
            )
    return rows


def contrast_rows(found: Sequence[Finding]) -> Rows:
    """One line per contrast's mean, per detector's mean, and per detector and test: ``contrasts.csv``."""
    rows = []
    for answer in found:
        for each in (answer.overall, *answer.by_detector, *answer.rows):
            e = each.estimate
            numbers = {
                "before": each.before.mean,
                "after": each.after.mean,
                "difference": e.mean,
                "low": e.low,
                "high": e.high,
                "p": each.p,
                "p_holm": each.adjusted,
            }
            rows.append(
                {
                    "contrast": each.contrast,
                    "a": each.a,
                    "b": each.b,
                    "detector": each.detector,
                    "test": each.test,
                    "figure": PRIMARY,
                    **{key: round(value, _DIGITS) for key, value in numbers.items()},
                    "cohens_d": "" if each.effect is None else round(each.effect, _DIGITS),
                    "delong_p": " ".join(f"{p:.4g}" for p in each.delong),
                    "verdict": each.verdict,
                    "seeds": e.seeds,
                    "detectable": round(each.detectable, _DIGITS),
                    "n_real": each.n[0],
                    "n_fake": each.n[1],
                    "own_fakes": answer.qualified,
                }
            )
    return rows


CONTRAST_COLUMNS = (
    "contrast", "a", "b", "detector", "test", "figure", "before", "after", "difference", "low", "high", "p", "p_holm",
    "cohens_d", "delong_p", "verdict", "seeds", "detectable", "n_real", "n_fake", "own_fakes",
)  # a table  # fmt: skip


def csv_table(rows: Rows, columns: Sequence[str] = ()) -> str:
    """Rows with the same keys as CSV; ``columns`` are needed where there may be no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns or rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_parquet(rows: Rows, file: Path) -> None:
    """The same lines as ``results.csv``, typed; what is empty there is null.

    Raises:
        MissingDependency: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency("pyarrow", extra="parquet") from error
    table = {
        name: [None if row[name] == "" and name not in _TEXT else row[name] for row in rows]
        for name in rows[0]
    }
    pyarrow.parquet.write_table(pyarrow.table(table), file)


_TEXT = ("perturbation", "commit", "version")


def latex_tables(results: Results, found: Sequence[Finding]) -> str:
    """Every figure of every condition on every test, and the contrasts: booktabs, to be ``\\input`` as it is.

    Bold is the best of a column among conditions that have not seen the generator; stars are Holm-adjusted; what was
    trained on stands in parentheses and is in no mean. Captions say what ± is, how many pictures there are, and what
    knowing nothing gives.
    """
    parts = ["% needs \\usepackage{booktabs}"]
    stars = {(d.detector, d.b, d.test): d.mark for answer in reversed(found) for d in (*answer.rows,)}
    for key, figure in FIGURES.items():
        heats = [heat(results, detector, key) for detector in results.detectors]
        better = "higher" if figure.higher_is_better else "lower"
        seen = any(any(row) for each in heats for row in each.seen)
        caption = (
            f"{figure.title} ({better} is better), mean over seeds; {tex(HALF_INTERVAL)}; the best is bold. "
            f"{tex(sizes(results))} {tex(chance(results, key))}"
        )
        if seen:
            caption += " In parentheses: trained on this generator, in no mean."
        if results.given:
            caption += f" {ELSEWHERE.capitalize()}: {NOT_KNOWN}."
        if key == PRIMARY and any(stars.values()):
            caption += (
                " Stars: differs from the condition that it is compared with, Holm-adjusted "
                "$p<0.05$ (*), $0.01$ (**), $0.001$ (***)."
            )
        body = _matrix(heats, stars if key == PRIMARY else {})
        parts.append(_float(body, caption, f"tab:{key}"))
    if found:
        parts.append(_float(_contrasts(found), _contrasts_caption(found), "tab:contrasts"))
    return "\n\n".join(parts) + "\n"


def sizes(results: Results) -> str:
    """How many pictures the unperturbed tests hold.

    Such as ``n: dcgan 130 fakes, 120 reals; others 90 fakes, 120 reals.``
    """
    by_size: dict[tuple[int, int], list[str]] = {}
    for name in results.plain:
        by_size.setdefault(results.size([name]), []).append(name)
    if len(by_size) == 1:
        ((real, fake),) = by_size
        return f"n: {fake:,} fakes and {real:,} reals each."
    listed = [f"{', '.join(names)} {fake:,} fakes, {real:,} reals" for (real, fake), names in by_size.items()]
    return f"n: {'; '.join(listed)}."


def chance(results: Results, key: str) -> str:
    """What a detector that knows nothing gets in the unperturbed tests."""
    values = sorted({f"{results.by_chance(test, key):.3f}" for test in results.plain})
    shown = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    why = f", {FIGURES[key].why}" if FIGURES[key].why else ""
    return f"Chance: {shown}{why}."


def _contrasts_caption(found: Sequence[Finding]) -> str:
    caption = (
        "Paired differences in mean AUC (chance: 0.5) over the tests of each comparison; in brackets the 95\\% "
        "interval; $p$ is Holm-adjusted; $n$: fakes / reals; $\\mathrm{MDE}$: the true difference that would be found "
        "four times in five."
    )
    for answer in found:
        if answer.qualified:
            caption += f" {tex(answer.name)}: {tex(answer.qualified)}."
    return caption


def _float(body: Sequence[str], caption: str, label: str) -> str:
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}",
            r"\smallskip\footnotesize\setlength{\tabcolsep}{2.5pt}",
            *body,
            r"\end{table}",
        ]
    )


def _matrix(heats: Sequence[Heat], stars: dict[tuple[str, str, str], str]) -> list[str]:
    """One tabular, or several below each other where one would be wider than the text."""
    names = (
        ["Detector", *(each.detector for each in heats)],
        ["Trained on", *(c for each in heats for c in each.conditions)],
    )
    widths = [
        _VALUE + _PARENTHESES * any(row[k] for each in heats for row in each.seen)
        for k in range(len(heats[0].tests))
    ]
    heads = [*heats[0].tests, _MEAN]
    widths = [max(width, _LETTER * len(head)) for width, head in zip([*widths, _VALUE], heads, strict=True)]
    lines: list[str] = []
    for columns in _panels(widths, _LINE - sum(_LETTER * max(map(len, each)) + _GAP for each in names)):
        lines += [r"\par\medskip"] if lines else []
        lines += _panel(heats, stars, columns)
    return lines


def _panels(widths: Sequence[float], room: float) -> list[list[int]]:
    """Columns by panel: as few panels as there is room for, and none much shorter than others.

    Example:
        >>> _panels([50, 50, 50, 50], room=170)
        [[0, 1], [2, 3]]
    """

    def fits(columns: Sequence[int]) -> bool:
        return sum(widths[c] for c in columns) + _GAP * (len(columns) - 1) <= room

    panels: list[list[int]] = [[]]
    for column in range(len(widths)):
        if panels[-1] and not fits([*panels[-1], column]):
            panels.append([])
        panels[-1].append(column)
    even = [part.tolist() for part in np.array_split(range(len(widths)), len(panels))]
    return even if all(map(fits, even)) else panels


def _panel(
    heats: Sequence[Heat], stars: dict[tuple[str, str, str], str], columns: Sequence[int]
) -> list[str]:
    heads = [*map(tex, heats[0].tests), _MEAN]
    lines = [
        r"\begin{tabular}{@{}ll" + "r" * len(columns) + "@{}}",
        r"\toprule",
        " & ".join(["Detector", "Trained on", *(heads[column] for column in columns)]) + r" \\",
    ]
    for each in heats:
        lines.append(r"\midrule")
        for row, condition in enumerate(each.conditions):
            entries = [
                _value(
                    each.values[row][column],
                    row in each.best[column],
                    each.seen[row][column],
                    stars.get((each.detector, condition, test), ""),
                )
                for column, test in enumerate(each.tests)
            ]
            entries.append(_value(each.means[row], row in each.best[-1]))
            name = tex(each.detector) if row == 0 else ""
            lines.append(" & ".join([name, tex(condition), *(entries[c] for c in columns)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _value(found: Estimate | None, bold: bool, seen: bool = False, stars: str = "") -> str:
    if found is None:
        return "--"
    mean = rf"\mathbf{{{found.mean:.3f}}}" if bold else f"{found.mean:.3f}"
    above = rf"^{{{stars}}}" if stars else ""
    text = rf"{mean}{above}_{{\pm {found.half_width:.3f}}}"
    return f"$({text})$" if seen else f"${text}$"


def _contrasts(found: Sequence[Finding]) -> list[str]:
    lines = [
        r"\begin{tabular}{@{}lrrrrrr@{}}",
        r"\toprule",
        r"Detector & $n$ & Before & After & Difference & $p$ & MDE \\",
    ]
    for answer in found:
        lines += [r"\midrule", rf"\multicolumn{{7}}{{l}}{{\emph{{{tex(answer.name)}}}}} \\"]
        alone = len(answer.by_detector) == 1
        for each in (*(() if alone else answer.by_detector), answer.overall):
            lines.append(" & ".join([_detector(answer, each), *_difference(each)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _detector(answer: Finding, each: Difference) -> str:
    return tex(each.detector or (answer.by_detector[0].detector if len(answer.by_detector) == 1 else "mean"))


def _difference(each: Difference) -> list[str]:
    e = each.estimate
    mean = f"{e.mean:+.3f}"
    shown = rf"\mathbf{{{mean}}}^{{{each.mark}}}" if each.mark else mean
    return [
        f"${each.n[1]:d}/{each.n[0]:d}$",
        f"${each.before.mean:.3f}$",
        f"${each.after.mean:.3f}$",
        rf"${shown}$ $[{e.low:+.3f}, {e.high:+.3f}]$",
        p_value(each.adjusted, latex=True),
        f"${each.detectable:.3f}$",
    ]


def p_value(p: float, latex: bool = False) -> str:
    """``0.034``, or ``< 0.001``.

    Example:
        >>> p_value(0.0341), p_value(0.0000001)
        ('0.034', '< 0.001')
    """
    text = f"{p:.3f}" if p >= 0.001 else "< 0.001"
    return f"${text}$" if latex else text


def tex(text: str) -> str:
    """Text as LaTeX prints it, at the start of a row too; letters that pdflatex does not know become a question mark.

    Example:
        >>> tex("50% of a_b")
        '50\\\\% of a\\\\_b'
    """
    return "".join(
        _SPECIAL.get(c) or ("\\" + c if c in "&%$#_{}" else c if c.isprintable() and ord(c) < 0x180 else "?")
        for c in text
    )
