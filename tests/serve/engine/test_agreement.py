import dataclasses

import pytest

from crossfake.detect.verdict import NO_ANSWER, Verdict
from crossfake.detect.wording import state
from crossfake.serve.engine.agreement import answer, counted, together


def said(verdict: str, probability: float | None = 0.5, grade: str = "fair") -> Verdict:
    return Verdict(0.5, probability, 0.1, 0.9, verdict, grade=grade)


@pytest.mark.parametrize(
    ("says", "word"),
    [
        (["fake", "real"], "uncertain"),
        (["fake", "uncertain"], "uncertain"),
        (["fake", "fake", "uncertain"], "fake"),
        (["real", "real"], "real"),
        ([NO_ANSWER, NO_ANSWER], NO_ANSWER),
        (["fake", NO_ANSWER, NO_ANSWER], "fake"),  # who was not tested has no say
        (["uncertain", NO_ANSWER], "uncertain"),
    ],
)
def test_what_several_come_to(says: list[str], word: str) -> None:
    verdicts = [said(each) for each in says]
    assert together(verdicts) == answer(verdicts).verdict == word


def test_the_number_is_never_a_mean() -> None:
    """Of those that agree the one with most tests behind it speaks; where they contradict each other none does."""
    two = [said("fake", 0.9, "weak"), said("fake", 0.7, "good")]
    assert answer(two) is two[1]
    torn = answer([said("fake", 0.9), said("real", 0.1)])
    assert (torn.probability, torn.low, torn.high) == (None, None, None)
    assert "detectors-disagree" in torn.reasons and "contradict each other" in state(torn).next


def test_they_are_counted_in_words() -> None:
    verdicts = {"a": said("fake"), "b": said("uncertain"), "c": said(NO_ANSWER, None)}
    assert counted(verdicts) == "1 of 3 detectors says fake, 1 is uncertain, 1 has no reliable answer"
    more = {**verdicts, "d": dataclasses.replace(said("real")), "e": said("real")}
    assert counted(more).endswith("2 say real") and counted({"a": said("fake")}) == ""
