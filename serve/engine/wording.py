"""Honest words: what a score means, how often it is wrong, what was never seen. Never that a thing is certain."""

from __future__ import annotations

from collections.abc import Sequence

from crossfake.datasets.crops import SMALLER
from crossfake.detect.verdict import REASONS
from crossfake.serve.engine.results import DetectorFacts, FaceAnalysis, Warning

MEANING = (
    "The number is how many of 100 pictures that look like this one to the detector would be fake, among pictures like "
    "those it was validated on. It is not proof, and a kind of forgery that the detector never saw may pass as real."
)


def sentence(text: str) -> str:
    """With a capital at the start and a full stop at the end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".!?" else ".")


WARNINGS = {
    **{code: sentence(words) for code, words in REASONS.items()},
    "detectors-disagree": "The detectors do not agree.",
    "unstable": "The verdict changes, or the face is lost, when the picture is recompressed or resized a little.",
    "no-face": "No face was found, so there was nothing to judge.",
    "no-face-model": "The model that finds faces is not installed, so the whole picture was judged.",
    "missed-faces": "Some faces could not be judged.",
    "first-frame": "This file holds several pictures: only the first was judged.",
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


def facts_words(facts: DetectorFacts, audit: str = "", unknown: str = "") -> tuple[str, ...]:
    """What a reader should know of a detector, most important first.

    Args:
        facts: without its words.
        audit: the summary of its training data's audit, when that did not pass.
        unknown: why its false-alarm rate is not known.
    """
    words = [facts.basis, MEANING if facts.calibrated else WARNINGS["not-calibrated"]]
    if facts.false_alarms is not None and facts.false_alarms_interval is not None:
        low, high = facts.false_alarms_interval
        words.append(
            f"Of {facts.reals:,} real test pictures it called {facts.false_alarms:.1%} fake (95% interval: {low:.1%} "
            f"to {high:.1%}). On pictures from elsewhere it may be wrong more often."
        )
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
    if audit:
        words.append(f"Its training data has a flaw that it may have learnt instead of forgeries ({audit}).")
    return tuple(words)
