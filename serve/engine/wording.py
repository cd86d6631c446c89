"""Honest words: what a score means, how often it is wrong, what was never seen. Never that a thing is certain."""

from __future__ import annotations

from collections.abc import Sequence

from crossfake.datasets.crops import SMALLER
from crossfake.serve.engine.results import DetectorFacts, FaceAnalysis, Warning

MEANING = (
    "The number is how many of 100 pictures that look like this one to the detector would be fake, among pictures like "
    "those it was validated on. It is not proof, and a kind of forgery that the detector never saw may pass as real."
)

WARNINGS = {
    "out-of-distribution": "This is unlike nearly all pictures that the detector was validated on: outside what it "
    "knows, its score means little.",
    "near-threshold": "Both verdicts are plausible.",
    "untested": "The detector was not tested on strangers' pictures, or did no better than guessing there: it gives no "
    "answer.",
    "unsupported": "In tests on strangers' pictures the detector was wrong too often to say so.",
    "capped": "Its tests on strangers' pictures allow no surer a number.",
    "prior": "The detector leans one way, and the share of fakes that was named the other.",
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


def conclusion(kind: str, faces: Sequence[FaceAnalysis], problem: str = "") -> str:
    """What is said of a whole file, in a few sentences.

    Args:
        kind: ``image`` or ``video``.
        faces: what was judged.
        problem: why nothing was judged.
    """
    what = "video" if kind == "video" else "picture"
    if not faces:
        if problem.startswith(SMALLER):
            problem = f"it, or the face in it, is {problem}, which the detector needs, and is not enlarged"
        return f"This {what} was not judged: {problem or 'no face was found'}. That says nothing about it."
    worst = max(faces, key=lambda face: face.opinion.rank)
    many = "people" if kind == "video" else "faces"
    who = f"Of {len(faces)} {many} the most suspicious: " if len(faces) > 1 else ""
    says = f"{who}{worst.says.headline}{f', {worst.says.number}' if worst.says.number else ''}."
    count = f" {worst.count}." if worst.count else ""
    return f"{says}{count} {worst.says.next}"


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
    words = [facts.basis] if facts.basis else []
    words.append(MEANING if facts.calibrated else WARNINGS["not-calibrated"])
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
