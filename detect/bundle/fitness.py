"""How far a detector's word may be trusted: what it learned from, what strangers' pictures it was tested on, and what
that test allows to be said. Words and numbers of the command line, the API, the page and reports all go through here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crossfake.datasets.firewall import OWN
from crossfake.datasets.sources.base import related
from crossfake.detect.verdict import LABELS, NO_ANSWER, UNCERTAIN, Verdict

GRADES = ("none", "weak", "fair", "good")
LEAST = 30  # groups of pictures from which on a source counts as tested
_SURE = {"good": 0.9, "fair": 0.75, "weak": 2 / 3}  # what the test must allow, were half of all pictures fake
# What a word's number may reach, were half of all pictures fake: where the next stronger word begins
_LIMIT = {"none": _SURE["weak"], "weak": _SURE["fair"], "fair": _SURE["good"], "good": 1.0}
_EDGE = 1e-6

# The first letters of generators' names, to say which kinds of forgery a test had none of
KINDS = {
    "GANs": r"\w*gan\d*",
    "diffusion models": r"sd\d*|sdxl|stable|\w*diff\w*|ldm|ddpm|adm|glide|imagen|dalle?|midjourney|flux|pixart|vqdm",
    "face swaps": r"\w*swap\w*|deepfakes?|face2face|neuraltextures|blend|faceshifter|fsgan|roop",
}


@dataclass(frozen=True)
class Outcome:
    """One source of reals, or one generator's fakes, in a test.

    Attributes:
        name: of the source or the generator.
        label: ``real`` or ``fake``.
        n: pictures.
        groups: people, source photos or videos that these are of.
        fake: share that was called fake; the rest that was not called real was uncertain.
        fake_interval: its 95% interval (Wilson), for as many independent pictures as the groups leave.
        real: share that was called real.
        real_interval: likewise.
        known: why this tells nothing about strangers; empty where it does.
    """

    name: str
    label: str
    n: int
    groups: int
    fake: float
    fake_interval: tuple[float, float]
    real: float
    real_interval: tuple[float, float]
    known: str = ""

    @property
    def counts(self) -> bool:
        """Whether it tells of strangers, and of enough of them."""
        return not self.known and self.groups >= LEAST


@dataclass(frozen=True)
class Fitness:
    """What a detector was made of and tested on.

    Attributes:
        sources: names of the data sets that it learned from.
        generators: whose fakes it learned from.
        audit: verdict of the audit of its training data.
        tested: sources and generators of all tests that hold.
        benign: highest plausible share of reals called fake after retouching and sending; None when not tested.
        flaws: tests that do not hold, and why.
    """

    sources: tuple[str, ...] = ()
    generators: tuple[str, ...] | None = None
    audit: str = ""
    tested: tuple[Outcome, ...] = ()
    benign: float | None = None
    flaws: tuple[str, ...] = ()

    @cached_property
    def reals(self) -> tuple[Outcome, ...]:
        """Foreign sources of reals that count."""
        return tuple(each for each in self.tested if each.counts and each.label == "real")

    @cached_property
    def fakes(self) -> tuple[Outcome, ...]:
        """Unseen generators that count."""
        return tuple(each for each in self.tested if each.counts and each.label == "fake")

    @cached_property
    def tested_evidence(self) -> tuple[float, float]:
        """The least and the largest likelihood ratio of fake against real that the test supports; (1, 1) untested.

        Of calls of fake: the hit rate's lower end over the false-alarm rate's upper end, each of the source that it
        does worst on, for the next picture may be like those. Of calls of real likewise.
        """
        if not self.reals or not self.fakes:
            return 1.0, 1.0
        hits = min(each.fake_interval[0] for each in self.fakes)
        alarms = max(each.fake_interval[1] for each in self.reals)
        misses = max(each.real_interval[1] for each in self.fakes)
        passes = min(each.real_interval[0] for each in self.reals)
        return min(1.0, misses / passes if passes else 1.0), max(1.0, hits / alarms)

    @cached_property
    def evidence(self) -> tuple[float, float]:
        """What the test supports, no stronger than the word: a weak hint has no number of a stronger one."""
        least, most = self.tested_evidence
        real, fake = (_odds(_LIMIT[self.grade_of(label)]) for label in LABELS)
        return max(least, 1 / real), min(most, fake)

    def grade_of(self, label: str) -> str:
        """How strong a word for ``real`` or ``fake`` may be."""
        least, most = self.tested_evidence
        sure = most / (1 + most) if label == "fake" else 1 / (1 + least)
        grade = next((name for name, needed in _SURE.items() if sure >= needed), "none")
        most_allowed = "weak" if self.audit == "fail" else "good"
        if self.benign is None or self.benign > 1 - _SURE["good"]:
            most_allowed = min(most_allowed, "fair", key=GRADES.index)
        return min(grade, most_allowed, key=GRADES.index)

    @cached_property
    def grade(self) -> str:
        """Of the better of both words: one of :data:`GRADES`; with ``none`` the detector is silent."""
        return max(map(self.grade_of, LABELS), key=GRADES.index)

    def say(self, own: Verdict, prior: float, moved: float | None = None) -> Verdict:
        """What may be said, given what the detector says by itself: the one place that decides word and number.

        Args:
            own: as :meth:`crossfake.detect.bundle.bundle.Detector.judge` gives it.
            prior: share of fakes at which the detector's probabilities hold.
            moved: share of fakes among the pictures at hand; ``prior`` when None.

        Returns:
            the probability at that share, no surer than the test allows. Fake only above one half, real only below;
            ``uncertain`` where the detector abstains, where only the share of fakes speaks for a label, or where the
            test does not support the word. ``no reliable answer``, without a number, for a detector that was not
            tested on strangers, or did no better than guessing there.
        """
        at = prior if moved is None else moved
        if own.probability is None or self.grade == "none":
            silent = dataclasses.replace(own, verdict=NO_ANSWER, probability=None, low=None, high=None)
            return dataclasses.replace(silent, grade="none", prior=at).having("untested")
        least, most = (_posterior(each, at) for each in self.evidence)

        def shown(probability: float) -> float:
            known = probability if at == prior else _posterior(_odds(probability) / _odds(prior), at)
            return min(max(known, least), most)

        probability = shown(own.probability)
        low, high = (None if end is None else shown(end) for end in (own.low, own.high))
        label, reasons = LABELS[int(probability >= 0.5)], []
        if own.verdict != UNCERTAIN and own.verdict != label:
            reasons.append("prior")
        elif own.verdict != UNCERTAIN and self.grade_of(label) == "none":
            reasons.append("unsupported")
        unsure = own.verdict == UNCERTAIN or bool(reasons)
        if not unsure and probability in (least, most):
            reasons.append("capped")
        return dataclasses.replace(
            own,
            verdict=UNCERTAIN if unsure else label,
            probability=probability,
            low=low,
            high=high,
            grade=self.grade if unsure else self.grade_of(label),
            prior=at,
        ).having(*reasons)

    def basis(self) -> str:
        """One line for the verdict: what it learned from, what it was tested on, what it was never tested on.

        Example:
            >>> Fitness(("celeba",), ("stylegan2",)).basis()
            'Learned from celeba and stylegan2; never tested on pictures of strangers.'
        """
        names = [name for name in (*self.sources, *(self.generators or ())) if name != OWN]
        learned = _list(dict.fromkeys(names)) or "data that it does not name"
        if not self.reals or not self.fakes:
            missing = (
                "pictures of strangers"
                if not self.reals and not self.fakes
                else (
                    "real pictures from elsewhere" if not self.reals else "a generator that it had not seen"
                )
            )
            done = _list([_rate(each) for each in (*self.reals, *self.fakes)])
            return (
                f"Learned from {learned};{f' tested on {done};' if done else ''} never tested on {missing}."
            )
        made = [word for each in self.fakes for word in re.findall(r"[a-z0-9]+", each.name.lower())]
        never = [kind for kind, names in KINDS.items() if not any(re.fullmatch(names, w) for w in made)]
        never += ["retouched pictures"] if self.benign is None else []
        tested = _list([_rate(each) for each in (*self.reals, *self.fakes)])
        return f"Learned from {learned}; tested on {tested}; never tested on {_list([*never, 'other generators'])}."


def of_card(card: Mapping[str, Any], model_hash: str) -> Fitness:
    """Of a bundle; a test that was changed by hand, or is of other weights or another calibration, does not count.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the record is damaged.
    """
    tested: dict[tuple[str, str, str], Outcome] = {}
    benign: list[float] = []
    flaws = []
    for test in (card.get("fitness") or {}).get("tests", ()):
        named = _list([part["name"] for part in test["tested"]])
        if test.get("digest") != digest(test):
            flaws.append(f"the record of its test on {named} was changed")
        elif test["model_hash"] != model_hash:
            flaws.append(f"its test on {named} is of other weights")
        elif test["calibration"] != calibration_digest(card):
            flaws.append(f"its test on {named} was before its last calibration")
        else:
            for part in test["tested"]:
                fake, real = (tuple(map(float, part[f"{word}_interval"])) for word in ("fake", "real"))
                tested[part["label"], part["name"], part["data"]] = Outcome(
                    part["name"],
                    part["label"],
                    part["n"],
                    part["groups"],
                    part["fake"],
                    (fake[0], fake[1]),
                    part["real"],
                    (real[0], real[1]),
                    part["known"],
                )
            benign += [float(test["benign"])] if test.get("benign") is not None else []
    return Fitness(
        tuple(map(str, card.get("sources") or ())),
        learned_generators(card),
        str((card.get("audit") or {}).get("verdict", "")),
        tuple(tested.values()),
        max(benign, default=None),
        tuple(flaws),
    )


def learned_generators(card: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Generators whose fakes a detector learned from; None where its card does not tell."""
    if card.get("generators") is not None:
        return tuple(map(str, card["generators"]))
    if card.get("published"):  # its sources are all that is known
        return tuple(map(str, card.get("sources") or ()))
    shares = card.get("validation_shares")
    if shares is None:
        return None
    return tuple(dict.fromkeys(str(each["generator"]) for each in shares if each["kind"] != "real"))


def family(name: str) -> str:
    """The first word of a generator's name: two of one family are not strange to each other.

    Example:
        >>> family("stylegan2-web"), family("reconstruct:f8be72ae"), family("FaceForensics++ (c23)")
        ('stylegan2', 'reconstruct', 'faceforensics')
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    return words[0] if words else ""


def why_known(card: Mapping[str, Any], label: str, name: str) -> str:
    """Why pictures of a source, or of a generator, are nothing strange to a detector; empty where they are."""
    learned = learned_generators(card)
    sources = tuple(map(str, card.get("sources") or ()))
    if label == "fake":
        if not name:
            return "the generator has no name"
        if learned is None:
            return "it is not known which generators it learned from"
        same = [
            each for each in (*learned, *sources) if each and each != OWN and family(each) == family(name)
        ]
        return f"it learned from {same[0]}" if same else ""
    if not name:
        return "the source has no name"
    if not sources:
        return "it is not known which data sets it learned from"
    if name in sources:
        return f"it learned from {name}"
    return next((why for one in sources if (why := related(one, name))), "")


def calibration_digest(card: Mapping[str, Any]) -> str:
    """SHA-256 of all that turns an output into a word: what a test is a test of."""
    names = ("calibration", "temperature", "threshold", "abstention", "novelty", "view")
    parts = {name: card.get(name) for name in names}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest(test: Mapping[str, Any]) -> str:
    """SHA-256 of a test's record without its own."""
    rest = {name: value for name, value in test.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def added(card: Mapping[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    """The card with one more test, sealed by its digest; it takes the place of an earlier one on the same rows."""
    sealed = {**test, "digest": digest(test)}
    before = [
        each for each in (card.get("fitness") or {}).get("tests", ()) if each.get("rows") != test["rows"]
    ]
    return {**card, "fitness": {"tests": [*before, sealed]}}


def _odds(probability: float) -> float:
    inside = min(max(probability, _EDGE), 1 - _EDGE)
    return inside / (1 - inside)


def _posterior(ratio: float, prior: float) -> float:
    odds = ratio * _odds(prior)
    return odds / (1 + odds)


def _rate(each: Outcome) -> str:
    """What came of one source, in words."""
    called = "called fake" if each.label == "real" else "found"
    return f"{each.name} ({round(each.fake * each.n):,} of {each.n:,} {each.label}s {called})"


def _list(names: Sequence[str] | Mapping[str, Any]) -> str:
    words = list(names)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
