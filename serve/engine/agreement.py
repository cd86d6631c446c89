"""Several detectors' verdicts on one face, shown apart: what they come to in words, never a number of all together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from crossfake.detect.bundle.fitness import GRADES
from crossfake.detect.verdict import NO_ANSWER, UNCERTAIN, VERDICTS, Verdict


def together(verdicts: Sequence[Verdict]) -> str:
    """What several detectors come to: a word, never a number of its own, for a mean would look surer than any of them.

    Those without a reliable answer do not count. It is uncertain when the others contradict each other, or when half
    of them abstain.

    Args:
        verdicts: of the detectors, one at least.
    """
    says = [each.verdict for each in verdicts if each.verdict != NO_ANSWER]
    if not says:
        return NO_ANSWER
    sure = set(says) - {UNCERTAIN}
    return UNCERTAIN if len(sure) != 1 or 2 * says.count(UNCERTAIN) >= len(says) else sure.pop()


def answer(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict that stands for several: of those that say what :func:`together` comes to the one with most tests
    behind it. Where none does, since they contradict each other, it has no number."""
    word = together(verdicts)
    agreed = [each for each in verdicts if each.verdict == word]
    if agreed:
        return max(agreed, key=lambda each: GRADES.index(each.grade or GRADES[0]))
    none = dataclasses.replace(verdicts[0], verdict=word, probability=None, low=None, high=None, reasons=())
    return none.having("detectors-disagree")


def counted(verdicts: Mapping[str, Verdict]) -> str:
    """How many of several detectors say what; empty of one alone.

    Example:
        >>> one = Verdict(0.9, 0.9, None, None, "fake")
        >>> counted({"a": one, "b": dataclasses.replace(one, verdict="uncertain"), "c": one})
        '2 of 3 detectors say fake, 1 is uncertain'
    """
    if len(verdicts) < 2:
        return ""
    says = [each.verdict for each in verdicts.values()]
    parts: list[str] = []
    for word in reversed(VERDICTS):
        if count := says.count(word):
            verb = {UNCERTAIN: ("is", "are"), NO_ANSWER: ("has", "have")}.get(word, ("says", "say"))[
                count > 1
            ]
            of = f" of {len(says)} detectors" if not parts else ""
            parts.append(f"{count}{of} {verb} {word}")
    return ", ".join(parts)
