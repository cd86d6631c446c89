"""An experiment's questions answered: every contrast's paired difference, its interval, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from crossfake.experiments.report.results import Results
from crossfake.stats.bootstrap import Measured
from crossfake.stats.intervals import Estimate, estimate
from crossfake.stats.significance import bootstrap_p, cohens_d_paired, delong, detectable, holm

OBVIOUS = 0.99  # detectability of fakes that anyone can tell
FEW_KIMG = 1000  # that a generator was shown; StyleGAN2 was shown 25,000
LEVEL = 0.05  # of error, over a family of questions

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class Difference:
    """Condition ``b`` minus condition ``a``, paired by picture and seed.

    Attributes:
        contrast: the question's name.
        detector: empty where it is the mean over detectors.
        test: empty where it is the mean over the contrast's tests.
        before, after: the figure of ``a`` and of ``b``.
        estimate: of the difference.
        p: two-sided, for no difference at all.
        adjusted: ``p`` after Holm (1979) over its family: all means of contrasts, or all single rows.
        effect: Cohen's d of the seeds' paired differences; None with one seed.
        n: reals and fakes that it rests on, over all its tests.
        delong: p of DeLong's test, seed by seed: what the pictures alone say about two given detectors. Rows only.
    """

    contrast: str
    detector: str
    test: str
    a: str
    b: str
    before: Estimate
    after: Estimate
    estimate: Estimate
    p: float
    n: tuple[int, int]
    adjusted: float = 1.0
    effect: float | None = None
    delong: tuple[float, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Only what holds after Holm's correction, with an interval that excludes zero, is a difference."""
        excluded = self.estimate.low > 0 or self.estimate.high < 0
        if not excluded or not self.adjusted < LEVEL:
            return "no difference shown"
        return "better" if self.estimate.mean > 0 else "worse"

    @property
    def detectable(self) -> float:
        """The true difference that would be found four times in five, from the width of the interval."""
        return detectable(self.estimate)

    @property
    def mark(self) -> str:
        """Stars of the adjusted p, as in tables: 0.05, 0.01, 0.001."""
        if self.verdict == "no difference shown":
            return ""
        return "*" * sum(self.adjusted < limit for limit in (0.05, 0.01, 0.001))


@dataclass(frozen=True)
class Finding:
    """One contrast: the mean over its tests and detectors, the same by detector, and every single row.

    Attributes:
        added: names of the synthetic fakes that ``b`` has and ``a`` has not, where that is all that differs.
        qualified: what a reader must know of those fakes before quoting the verdict; empty where there is nothing.
    """

    name: str
    a: str
    b: str
    tests: tuple[str, ...]
    overall: Difference
    by_detector: tuple[Difference, ...]
    rows: tuple[Difference, ...]
    added: tuple[str, ...] = ()
    qualified: str = ""


def answers(results: Results) -> list[Finding]:
    """All contrasts that any seed of any detector finished on both sides.

    Holm's correction is made in two families: the means of the contrasts (the questions asked beforehand), and all
    single rows (detector by test) together with the means by detector.
    """
    found = []
    for contrast in results.experiment["contrasts"]:
        name, a, b = contrast["name"], contrast["a"], contrast["b"]
        tests = [test for test in contrast["tests"] if test in results.tests]
        pairs = {d: seeds for d in results.detectors if (seeds := results.seeds(d, a, b))}
        if not pairs or not tests:
            continue
        sides = {d: _sides(results, d, a, b, tests, seeds) for d, seeds in pairs.items()}
        n = results.size(tests)
        overall = _difference(name, "", "", a, b, list(sides.values()), n)
        by_detector = [_difference(name, d, "", a, b, [side], n) for d, side in sides.items()]
        rows = [
            replace(
                _difference(
                    name, d, test, a, b, [_sides(results, d, a, b, [test], seeds)], results.size([test])
                ),
                delong=_delong(results, d, a, b, test, seeds),
            )
            for d, seeds in pairs.items()
            for test in tests
        ]
        added = _added(results, a, b)
        found.append(
            Finding(
                name,
                a,
                b,
                tuple(tests),
                overall,
                tuple(by_detector),
                tuple(rows),
                added,
                qualified(results, added),
            )
        )
    return _corrected(found)


def _added(results: Results, a: str, b: str) -> tuple[str, ...]:
    one, other = results.conditions[a], results.conditions[b]
    extra = tuple(name for name in other["synthetic"] if name not in one["synthetic"])
    same = one["fakes"] == other["fakes"] and all(name in other["synthetic"] for name in one["synthetic"])
    return extra if same else ()


def detectability(results: Results, name: str) -> float | None:
    """How surely a small network tells these fakes (average precision; chance is 0.5); None if it was not measured."""
    found: float | None = (results.pools[name]["quality"] or {}).get("detectability")
    return found


def qualified(results: Results, added: Sequence[str]) -> str:
    """Of which fakes a verdict on own fakes speaks, where they are trivially told or their generator saw few images.

    Such as ``with fakes of 3 kimg that anyone can tell``; empty where neither is known of any of them.
    """
    obvious = [(detectability(results, name) or 0.0) >= OBVIOUS for name in added]
    kimg = [results.pools[name].get("kimg") or np.inf for name in added]
    few = sorted(each for each in kimg if each < FEW_KIMG)
    if not few and not any(obvious):
        return ""
    shown = f"{few[0]:.3g} to {few[-1]:.3g}" if len(set(few)) > 1 else f"{few[0]:.3g}" if few else ""
    some = "some of them " if len(few) < len(kimg) else ""
    of = f"{', ' if some else ' '}{some}of {shown} kimg" if few else ""
    tell = (
        " that anyone can tell" if all(obvious) else ", some of which anyone can tell" if any(obvious) else ""
    )
    return f"with fakes{of}{',' if some and few and all(obvious) else ''}{tell}"


def _corrected(found: Sequence[Finding]) -> list[Finding]:
    means = iter(_holm([answer.overall for answer in found]))
    singles = iter(_holm([each for answer in found for each in (*answer.by_detector, *answer.rows)]))
    return [
        replace(
            answer,
            overall=next(means),
            by_detector=tuple(next(singles) for _ in answer.by_detector),
            rows=tuple(next(singles) for _ in answer.rows),
        )
        for answer in found
    ]


def _holm(differences: Sequence[Difference]) -> list[Difference]:
    if not differences:
        return []
    adjusted = holm([each.p for each in differences])
    return [replace(each, adjusted=float(p)) for each, p in zip(differences, adjusted, strict=True)]


def _sides(
    results: Results, detector: str, a: str, b: str, tests: Sequence[str], seeds: Sequence[int]
) -> tuple[Measured, Measured]:
    before, after = (results.measured(detector, c, tests, seeds=seeds) for c in (a, b))
    assert before is not None and after is not None  # seeds and tests are not empty
    return before, after


def _difference(
    contrast: str,
    detector: str,
    test: str,
    a: str,
    b: str,
    sides: Sequence[tuple[Measured, Measured]],
    n: tuple[int, int],
) -> Difference:
    parts = [after - before for before, after in sides]
    return Difference(
        contrast,
        detector,
        test,
        a,
        b,
        estimate(*(before for before, _ in sides)),
        estimate(*(after for _, after in sides)),
        estimate(*parts, bounds=(-1, 1)),
        p=float(bootstrap_p(*parts)),
        n=n,
        effect=_effect(parts),
    )


def _effect(parts: Sequence[Measured]) -> float | None:
    """Of the per-seed differences, detectors averaged where they have the same seeds."""
    if len({len(part.per_seed) for part in parts}) > 1 or len(parts[0].per_seed) < 2:
        return None
    found = float(cohens_d_paired(np.mean([part.per_seed for part in parts], axis=0)))
    return found if np.isfinite(found) else None


def _delong(
    results: Results, detector: str, a: str, b: str, test: str, seeds: Sequence[int]
) -> tuple[float, ...]:
    """None of a test with fewer than two groups of a class."""
    truth = results.truths[test]
    by_seed: list[dict[int, Any]] = [
        {cell.seed: cell.scores[test] for cell in results.cells_of(detector, condition)}
        for condition in (a, b)
    ]
    try:
        found = [delong(truth.labels, by_seed[0][s], by_seed[1][s], groups=truth.groups) for s in seeds]
    except ValueError:
        return ()
    return tuple(each.p for each in found)
