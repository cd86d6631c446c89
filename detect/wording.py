"""A verdict in words, the same for the command line, the page, the API and reports: never more than its tests allow."""

from __future__ import annotations

from dataclasses import dataclass

from crossfake.detect.verdict import NO_ANSWER, UNCERTAIN, Verdict

_ABOVE, _BELOW = 0.99, 0.01  # no detector is tested on enough images to say more
_WORDS = {"weak": "A weak hint: {}", "fair": "Probably {}", "good": "Very probably {}"}
_SOURCE = "Look for where the picture comes from and for other copies of it, and ask who made it"
# What to do about an uncertain answer; of several reasons the first counts
_NEXT = {
    "detectors-disagree": f"The detectors contradict each other, so none of them decides this. {_SOURCE}.",
    "out-of-distribution": "It is unlike the pictures that the detector knows: take one that was trained on such "
    f"pictures. {_SOURCE}.",
    "small-face": "Find a larger copy and try that.",
    "small-picture": "Find a larger copy and try that.",
    "compressed": "Find an earlier copy, one that was sent on less often, and try that.",
    "blurred": "Find a sharper copy and try that.",
    "unsupported": "In tests on strangers' pictures this detector was wrong too often to say so: take another one.",
    "prior": "The detector leans the other way, but so few, or so many, pictures are fake by the share that was named "
    "that its word does not decide: take a second detector.",
    "near-threshold": f"Both are plausible: try an earlier or larger copy, or a second detector. {_SOURCE}.",
}


@dataclass(frozen=True)
class Statement:
    """What is said of a face, or of a file.

    Attributes:
        headline: a few words: ``Probably fake``, ``Uncertain``, ``No reliable answer``.
        number: the probability with its interval and the share of fakes at which it holds; empty where none is shown.
        next: what to do now; of an uncertain answer it is the answer.
        basis: what the detector learned from, was tested on, and was never tested on.
        folded: a number that is for those who ask, and not to be passed on; empty where ``number`` is not.
    """

    headline: str
    number: str = ""
    next: str = ""
    basis: str = ""
    folded: str = ""


def state(found: Verdict, basis: str = "") -> Statement:
    """A verdict in words.

    Args:
        found: as :meth:`crossfake.detect.bundle.fitness.Fitness.say` has it.
        basis: :meth:`crossfake.detect.bundle.fitness.Fitness.basis` of the detector.

    Example:
        >>> state(Verdict(0.9, 0.93, 0.88, 0.95, "fake", grade="fair", prior=0.5)).headline
        'Probably fake'
        >>> state(Verdict(0.9, None, None, None, "no reliable answer")).number
        ''
    """
    if found.verdict == NO_ANSWER:
        own = f"The network's own number is {bare_score(found.score)} out of 1 for fake."
        folded = f"{own} No test says what that means."
        return Statement("No reliable answer", "", f"{_SOURCE}.", basis, folded)
    if found.verdict == UNCERTAIN:
        code = next((each for each in _NEXT if each in found.reasons), "near-threshold")
        return Statement("Uncertain", number(found), _NEXT[code], basis)
    headline = _WORDS.get(found.grade, _WORDS["fair"]).format(found.verdict)
    return Statement(headline, number(found), f"This is not proof. {_SOURCE}.", basis)


def opinion(found: Verdict) -> str:
    """A verdict in one sentence without its full stop."""
    says = state(found)
    return f"{says.headline}: {says.number}" if says.number else says.headline


def number(found: Verdict) -> str:
    """The number of a verdict, with what it means; empty where it has none.

    Example:
        >>> number(Verdict(0.9, 0.97, 0.93, 0.98, "fake", prior=0.5))
        'about 97 in 100 such pictures are fake (95% interval: 93 to 98 in 100), where 50 in 100 are'
        >>> number(Verdict(0.9, 0.8, 0.8, 0.8, "fake", reasons=("capped",), prior=0.1))
        'about 80 in 100 such pictures are fake, the most that its tests allow to say, where 10 in 100 are'
        >>> number(Verdict(0.1, 0.1, None, None, "real"))
        'a score of 0.10 out of 1 for fake (never calibrated, so this is no probability)'
    """
    if found.probability is None:
        return ""
    at = "" if found.prior is None else f", where {in_100(found.prior).removeprefix('about ')} are"
    share = f"{in_100(found.probability)} such pictures are fake"
    if "capped" in found.reasons:
        end = "most" if found.probability >= 0.5 else "least"
        return f"{share}, the {end} that its tests allow to say{at}"
    if found.low is None or found.high is None:
        score = bare_score(found.probability)
        return f"a score of {score} out of 1 for fake (never calibrated, so this is no probability)"
    return f"{share} ({interval(found.low, found.high)}){at}"


def in_100(probability: float) -> str:
    """A probability in words.

    Example:
        >>> in_100(0.97), in_100(0.9999), in_100(0.002)
        ('about 97 in 100', 'above 99 in 100', 'below 1 in 100')
    """
    if probability > _ABOVE:
        return "above 99 in 100"
    if probability < _BELOW:
        return "below 1 in 100"
    return f"about {round(100 * probability)} in 100"


def bare_score(score: float) -> str:
    """A score in [0, 1] that is no probability; it, too, never says that a thing is certain.

    Example:
        >>> bare_score(0.734), bare_score(1.0)
        ('0.73', '0.99')
    """
    return f"{min(max(score, _BELOW), _ABOVE):.2f}"


def interval(low: float | None, high: float | None) -> str:
    """A 95% interval in words.

    Example:
        >>> interval(0.9, 0.999)
        '95% interval: 90 to above 99 in 100'
        >>> interval(0.995, 0.999)
        '95% interval: above 99 in 100'
        >>> interval(None, None)
        'no interval: the detector was never calibrated'
    """
    if low is None or high is None:
        return "no interval: the detector was never calibrated"
    ends = [_end(value) for value in (low, high)]
    span = ends[0] if ends[0] == ends[1] else " to ".join(ends)
    return f"95% interval: {span} in 100"


def _end(value: float) -> str:
    return "above 99" if value > _ABOVE else "below 1" if value < _BELOW else str(round(100 * value))
