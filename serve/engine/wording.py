"""Honest words: what a score means, how often it is wrong, what was never seen. Never that a thing is certain."""

from __future__ import annotations

from collections.abc import Sequence

from crossfake.datasets.crops import SMALLER
from crossfake.detect.verdict import NOT_JUDGED, UNCERTAIN, Verdict
from crossfake.serve.engine.results import ENSEMBLE, DetectorFacts, FaceAnalysis, Warning

_ABOVE, _BELOW = 0.99, 0.01  # no detector is tested on enough images to say more

MEANING = (
    "The number is how many of 100 pictures that look like this one to the detector would be fake, among pictures like "
    "those it was validated on. It is not proof, and a kind of forgery that the detector never saw may pass as real."
)

WARNINGS = {
    "out-of-distribution": "This is unlike nearly all pictures that the detector was validated on: outside what it "
    "knows, its score means little.",
    "near-threshold": "Both verdicts are plausible.",
    "small-face": "The face has fewer pixels than the detector looks at: details that give a forgery away may be "
    "missing.",
    "small-picture": "The picture has fewer pixels than the detector looks at: details that give a forgery away may be "
    "missing.",
    "compressed": "The picture is heavily compressed: traces of a forgery may be gone.",
    "blurred": "There is hardly any detail: traces of a forgery may be gone.",
    "other-crop": "The picture could not be cut like those that the detector was trained on: its score means less.",
    "detectors-disagree": "The detectors do not agree.",
    "unstable": "The verdict changes, or the face is lost, when the picture is recompressed or resized a little.",
    "no-face": "No face was found, so there was nothing to judge.",
    "no-face-model": "The model that finds faces is not installed, so the whole picture was judged.",
    "missed-faces": "Some faces could not be judged.",
    "first-frame": "This file holds several pictures: only the first was judged.",
    "colour-profile": "The picture's colour profile could not be converted: its colours were judged as they are.",
    "hdr": "This is of a high dynamic range or wide gamut that could not be converted: its colours are off.",
    "interlaced": "This is interlaced, which could not be undone: what moves is combed.",
    "not-calibrated": "The detector was never calibrated: its number is a score, not a probability.",
}


def warning(code: str) -> Warning:
    """A code with its sentence."""
    return Warning(code, WARNINGS[code])


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


def opinion(found: Verdict) -> str:
    """One opinion in words.

    Example:
        >>> opinion(Verdict(0.9, 0.97, 0.93, 0.98, "fake"))
        'probably fake: about 97 in 100 such pictures are (95% interval: 93 to 98 in 100)'
        >>> opinion(Verdict(0.1, 0.004, 0.001, 0.02, "real"))
        'probably real: below 1 in 100 such pictures are fake (95% interval: below 1 to 2 in 100)'
        >>> opinion(Verdict(0.1, 0.1, None, None, "real"))
        'probably real, with a score of 0.10 out of 1 for fake (never calibrated, so this is no probability)'
    """
    if found.low is None or found.high is None:
        says = found.verdict if found.verdict == UNCERTAIN else f"probably {found.verdict}"
        score = bare_score(found.probability)
        return (
            f"{says}, with a score of {score} out of 1 for fake (never calibrated, so this is no probability)"
        )
    share, span = in_100(found.probability), interval(found.low, found.high)
    match found.verdict, found.probability >= 0.5:
        case "fake", True:
            return f"probably fake: {share} such pictures are ({span})"
        case "real", False:
            return f"probably real: {share} such pictures are fake ({span})"
        case "fake" | "real", _:  # its threshold is far from one half
            return f"called {found.verdict}, though {share} such pictures are fake ({span})"
    if "out-of-distribution" in found.reasons:
        return (
            f"uncertain: it is unlike nearly all pictures that the detector knows, so its {share} ({span}) "
            "says little"
        )
    return (
        f"uncertain: {share} such pictures are fake ({span}), but that is not clear enough to say of this one"
    )


def conclusion(kind: str, faces: Sequence[FaceAnalysis], verdict: str, problem: str = "") -> str:
    """The one sentence on a whole file.

    Args:
        kind: ``image`` or ``video``.
        faces: what was judged.
        verdict: of the file.
        problem: why nothing was judged.
    """
    what = "video" if kind == "video" else "picture"
    if verdict == NOT_JUDGED or not faces:
        if problem.startswith(SMALLER):
            problem = f"it, or the face in it, is {problem}, which the detector needs, and is not enlarged"
        return f"This {what} was not judged: {problem or 'no face was found'}. That says nothing about it."
    worst = max(
        (face for face in faces if face.verdict == verdict), key=lambda face: face.opinion.probability
    )
    many = "people" if kind == "video" else "faces"
    who = f"Of {len(faces)} {many} the most suspicious is " if len(faces) > 1 else _subject(worst, what)
    judged = len(worst.per_detector.keys() - {ENSEMBLE})  # some may have found no face there
    by = f", by {judged} detectors together" if judged > 1 else ""
    return f"{who}{opinion(worst.opinion)}{by}. This is not proof."


def _subject(face: FaceAnalysis, what: str) -> str:
    return f"The face in this {what} is " if face.box else f"This {what} is "


def rate_words(rate: float, span: tuple[float, float], reals: int) -> str:
    """How often reals are called fake.

    Example:
        >>> rate_words(1 / 618, (0.0, 0.009), 618)
        'Of 618 real test pictures it called 0.2% fake (95% interval: 0.0% to 0.9%).'
    """
    low, high = span
    return (
        f"Of {reals:,} real test pictures it called {rate:.1%} fake (95% interval: {low:.1%} to {high:.1%})."
    )


def facts_words(facts: DetectorFacts, audit: str = "", unknown: str = "") -> tuple[str, ...]:
    """What a reader should know of a detector, most important first.

    Args:
        facts: without its words.
        audit: the summary of its training data's audit, when that did not pass.
        unknown: why its false-alarm rate is not known.
    """
    known = ", ".join(facts.trained_on) or "unknown data"
    words = [MEANING if facts.calibrated else WARNINGS["not-calibrated"]]
    if facts.false_alarms is not None and facts.false_alarms_interval is not None:
        words.append(rate_words(facts.false_alarms, facts.false_alarms_interval, facts.reals))
        words.append("On pictures from elsewhere it may be wrong more often.")
    else:
        words.append(
            f"How often it calls real pictures fake is not known{': ' + unknown if unknown else ''}."
        )
    weak = [(name, count, share) for name, count, share in facts.tested_on if share < 0.5]
    if facts.tested_on:
        found = "; ".join(f"{name}: {share:.0%} of {count:,}" for name, count, share in facts.tested_on)
        words.append(f"Fakes that it found in the test, by generator: {found}.")
    if weak:
        words.append(f"It misses most fakes of {', '.join(name for name, _, _ in weak)}.")
    words.append(
        f"It was trained on {known}. It has never seen any other generator, face swap or editing program, and may "
        "call their pictures real."
    )
    if audit:
        words.append(f"Its training data has a flaw that it may have learnt instead of forgeries ({audit}).")
    return tuple(words)
