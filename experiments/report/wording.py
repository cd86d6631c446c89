"""What an experiment found, in words: the headline, and what a careful reader should know before quoting it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from crossfake.experiments.report.comparing import LEVEL, Difference, Finding, detectability, qualified
from crossfake.experiments.report.results import SECONDARY_RESAMPLES, Results
from crossfake.experiments.report.tables import p_value
from crossfake.pages import number, percent, signed
from crossfake.stats.bootstrap import Measured, average
from crossfake.stats.intervals import Estimate, estimate

_OUTCOME = {"better": "helped", "worse": "hurt", "no difference shown": "showed no difference"}


def finding(results: Results, found: Sequence[Finding]) -> dict[str, Any]:
    """The headline: ``title``, ``sentence`` with the numbers, ``points`` (one per question where there are several),
    and ``plain``: what the figure means."""
    if len(found) == 1:
        return _one(results, found[0])
    if found:
        return _several(results, found)
    return _unseen(results)


def _one(results: Results, answer: Finding) -> dict[str, Any]:
    each = answer.overall
    subject = f"Training on {join(answer.added)} fakes" if answer.added else ""
    title = f"{subject} {_OUTCOME[each.verdict]}{_comma(answer.qualified)}."
    if not subject:
        title = {
            "better": f"“{answer.b}” did better than “{answer.a}”.",
            "worse": f"“{answer.b}” did worse than “{answer.a}”.",
            "no difference shown": f"No difference shown between “{answer.a}” and “{answer.b}”.",
        }[each.verdict]
    before, after = each.before.mean, each.after.mean
    change = "rose" if each.estimate.mean >= 0 else "fell"
    where = _where(results, answer)
    if each.verdict == "no difference shown":
        sentence = (
            f"{where}, the mean AUC was {number(before)} for “{answer.a}” and {number(after)} for “{answer.b}”: "
            f"no difference shown ({_numbers(each, 1)}). {_detectable(each)}"
        )
    else:
        sentence = (
            f"{where}, the mean AUC {change} from {number(before)} to {number(after)} ({_numbers(each, 1)})."
        )
    plain = (
        f"Shown one real and one fake picture, a detector told which is the fake {percent(before)} of the time as "
        f"“{answer.a}” and {percent(after)} as “{answer.b}”; guessing gives 50%. {_sizes(results, answer.tests, each)}"
    )
    verdicts = [row.verdict for row in answer.rows]
    others = [
        f"{verdicts.count(v)} of {len(verdicts)} say “{v}”"
        for v in dict.fromkeys(verdicts)
        if v != each.verdict
    ]
    split = f" Row by row, {join(others)}." if others and len(verdicts) > 1 else ""
    return {"title": title, "sentence": sentence, "points": [], "plain": plain + split}


def _several(results: Results, found: Sequence[Finding]) -> dict[str, Any]:
    verdicts = [answer.overall.verdict for answer in found]
    counts = {v: verdicts.count(v) for v in ("better", "worse", "no difference shown") if v in verdicts}
    total = len(found)
    own = all(answer.added for answer in found)
    words = (
        {"better": "helped", "worse": "hurt", "no difference shown": "showed no difference"}
        if own
        else {"better": "better", "worse": "worse", "no difference shown": "no difference shown"}
    )
    subject = "Own fakes " if own else ""
    if len(counts) == 1:
        title = f"{subject}{words[verdicts[0]]} in all {total} comparisons."
    else:
        title = f"{subject}{join([f'{words[v]} in {n}' for v, n in counts.items()])} of {total} comparisons."
    # of all fakes together; each point below says it of its own
    of = (
        qualified(results, tuple(dict.fromkeys(name for answer in found for name in answer.added)))
        if own
        else ""
    )
    title = f"{title[0].upper()}{title[1:].rstrip('.')}{_comma(of)}."
    smallest = min(found, key=lambda answer: answer.overall.estimate.mean).overall
    largest = max(found, key=lambda answer: answer.overall.estimate.mean).overall
    unseen = all(set(answer.tests) <= set(results.unseen(answer.a, answer.b)) for answer in found)
    sentence = (
        f"The difference in mean AUC{' on tests of unseen generators' if unseen else ''} goes from "
        f"{signed(smallest.estimate.mean)} ({smallest.contrast}) to {signed(largest.estimate.mean)} "
        f"({largest.contrast})."
    )
    if set(verdicts) == {"no difference shown"}:
        sentence += f" {_detectable(max((a.overall for a in found), key=lambda each: each.detectable))}"
    points = [
        (
            answer,
            f"mean AUC {number(answer.overall.before.mean)} to {number(answer.overall.after.mean)} "
            f"({_numbers(answer.overall, total)})"
            + (
                f"; could have shown {number(answer.overall.detectable)}"
                if answer.overall.verdict == "no difference shown"
                else ""
            )
            + _comma(answer.qualified),
        )
        for answer in found
    ]
    tests = tuple(dict.fromkeys(test for answer in found for test in answer.tests))
    fewest = min((a.overall for a in found), key=lambda each: each.estimate.seeds)
    return {"title": title, "sentence": sentence, "points": points, "plain": _sizes(results, tests, fewest)}


def _unseen(results: Results) -> dict[str, Any]:
    """Without a question asked: how well detectors do on what they have not seen, and how much worse that is."""
    unseen, seen = (pooled(results, trained) for trained in (False, True))
    if not unseen:
        return {"title": "Nothing unseen was tested.", "sentence": "", "points": [], "plain": ""}
    here = estimate(*unseen)
    sentence = (
        f"On generators that they had not trained on, detectors reached a mean AUC of {number(here.mean)} "
        f"(95% interval {number(here.low)} to {number(here.high)})"
    )
    title = f"Mean AUC {here.mean:.2f} on generators not trained on."
    if len(seen) == len(unseen):
        there = estimate(*seen)
        gap = estimate(*(a - b for a, b in zip(unseen, seen, strict=True)), bounds=(-1, 1))
        sentence += (
            f"; on those that they had, {number(there.mean)} ({number(there.low)} to {number(there.high)}). "
            f"The difference is {signed(gap.mean)} ({signed(gap.low)} to {signed(gap.high)})."
        )
        if gap.high < 0:
            title = (
                f"From {there.mean:.2f} to {here.mean:.2f}: detectors do worse on generators not trained on."
            )
    else:
        sentence += "."
    plain = (
        f"Shown one real picture and one fake of a new generator, a detector told which is the fake "
        f"{percent(here.mean)} of the time; guessing gives 50%. {_sizes(results, results.plain, here)}"
    )
    return {"title": title, "sentence": sentence, "points": [], "plain": plain}


def pooled(results: Results, trained_on: bool) -> list[Measured]:
    """Per detector, AUC averaged over all conditions and the tests that they have seen, or have not."""
    parts = []
    for detector in results.detectors:
        done = [c for c in results.trained if results.seeds(detector, c)]
        seeds = results.seeds(detector, *done)
        each = [
            found
            for c in done
            if (
                found := results.measured(
                    detector, c, results.seen(c) if trained_on else results.unseen(c), seeds=seeds
                )
            )
        ]
        if each:
            parts.append(average(each))
    return parts


def _comma(text: str) -> str:
    return f", {text}" if text else ""


def _where(results: Results, answer: Finding) -> str:
    unseen = set(results.unseen(answer.a, answer.b))
    if set(answer.tests) <= unseen:
        return "On generators that no detector had seen"
    return f"On {join(list(answer.tests))}" if len(answer.tests) < 4 else f"On {len(answer.tests)} tests"


def _numbers(each: Difference, questions: int) -> str:
    e = each.estimate
    p = p_value(each.adjusted)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    after = (
        f", Holm-adjusted over {questions} comparisons"
        if questions > 1
        else ", Holm-adjusted: one comparison"
    )
    return f"{signed(e.mean)}, 95% interval {signed(e.low)} to {signed(e.high)}, {p}{after}"


def _detectable(each: Difference) -> str:
    return (
        f"A true difference of {number(each.detectable)} would have been found four times in five; "
        "a smaller one may well be there."
    )


def _sizes(results: Results, tests: Sequence[str], each: Difference | Estimate) -> str:
    """How much this rests on: pictures, detectors, seeds."""
    reals, fakes = results.size(tests)
    seeds = (each.estimate if isinstance(each, Difference) else each).seeds
    trained = len(results.detectors) - len(results.given)
    detectors = "one detector" if trained == 1 else f"{trained} detectors"
    said = f"n = {fakes:,} fakes and {reals:,} reals; {detectors}; {seeds} seed{'s' if seeds != 1 else ''}."
    if seeds == 1:
        said += " One seed: the interval leaves out how much training itself varies."
    return said


def firewall(experiment: dict[str, Any]) -> str:
    """What was checked before the first detector was trained; experiments of before did not look at generators."""
    rows = "No person, source photo or picture of a test is among the training or validation rows"
    how = "this was checked by group and by pixels before the first detector was trained"
    if (found := experiment.get("firewall")) is None:
        return f"{rows}; {how}. Whether generators learned from them was not looked at."
    if unchecked := found["unchecked"]:
        return f"{rows}; {how}. Not checked: {'; '.join(unchecked)}."
    return f"{rows}, or among those that own generators learned from; {how}."


def notes(results: Results, found: Sequence[Finding]) -> list[str]:
    """What a careful reader should know before quoting the numbers."""
    experiment = results.experiment
    said = [
        "All conditions have the same reals, the same number of training steps and batches that are half real, half "
        "fake; only the pool that the fake half is drawn from differs. The checkpoint that is kept, calibration and "
        "threshold come from validation rows of the same pools, so they differ with them; never from test rows.",
        firewall(experiment),
        f"Intervals (95%) of AUC come from {results.resamples:,} resamples of whole groups of the test pictures, the "
        "same for all conditions, plus Student's t for the spread between seeds. Those of other figures come from "
        f"{min(results.resamples, SECONDARY_RESAMPLES):,}. They say nothing about other generators or other faces.",
    ]
    if found:
        rows = sum(len(answer.rows) + len(answer.by_detector) for answer in found)
        said.append(
            f"A difference is called one where its interval excludes zero and its p, after Holm's correction, is below "
            f"{LEVEL}. The correction is over the {len(found)} mean{'s' if len(found) > 1 else ''} of the comparisons, "
            f"which were fixed beforehand, and apart from that over the {rows} rows below them."
        )
        said.append("DeLong's test (seed by seed, in contrasts.csv) knows of the pictures' chance alone.")
        if unknown := sorted({n for a in found for n in a.added if detectability(results, n) is None}):
            said.append(
                f"How easily {join(unknown)} fakes are told was not measured: they may have nothing to teach."
            )
        high = [r for a in found for r in a.rows if r.before.mean > 0.99]
        if high:
            said.append(f"Little room to help: AUC is above 0.99 already before, in {len(high)} row(s).")
    few = min(len(results.seeds(d, c)) or 99 for d in results.detectors for c in results.trained)
    if few == 1:
        said.append("With one seed the intervals leave out how much training itself varies.")
    elif few < 3:
        said.append(f"With {few} seeds the intervals must be wide; three or more would say much more.")
    if failed := len(experiment["failures"]):
        said.append(f"{failed} cell(s) failed and are missing from all figures; they are listed below.")
    if results.pending:
        said.append(f"{len(results.pending)} cell(s) have not been run yet: these results are preliminary.")
    return [*experiment.get("notes", []), *said, *_mixed(results)]


def _mixed(results: Results) -> list[str]:
    """What differs between the machines and programs that trained the cells: their keys know nothing of it."""
    cards = [cell.card for cell in results.cells]
    said = []
    for what, of in _CIRCUMSTANCES.items():
        counts = Counter(text for card in cards if (text := of(card)))
        if len(counts) > 1:
            listed = join([f"{text} ({count})" for text, count in counts.most_common()])
            said.append(f"Cells do not share one {what}: {listed}. Small differences may come from that.")
    return said


def _package(name: str) -> Callable[[dict[str, Any]], str | None]:
    return lambda card: card.get("packages", {}).get(name)


_CIRCUMSTANCES: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "commit of crossfake": lambda card: re.sub(r"^(\w{12})\w+", r"\1", card.get("commit") or ""),
    "version of torch": _package("torch"),
    "version of timm": _package("timm"),
    "processor": lambda card: ", ".join(
        map(str, card.get("hardware", {}).get("gpus") or [card.get("hardware", {}).get("cpu") or ""])
    ),
}


def join(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
