"""What may be said of a detector: grades, caps, priors, records that were changed."""

import dataclasses

import pytest

from crossfake.detect.bundle import fitness
from crossfake.detect.bundle.fitness import Fitness, Outcome
from crossfake.detect.verdict import NO_ANSWER, Verdict
from crossfake.detect.wording import number, opinion, state
from crossfake.stats.intervals import wilson

OWN = Verdict(0.98, 0.995, 0.99, 0.999, "fake")


def part(label: str, fake: float, real: float, n: int = 300, name: str = "", known: str = "") -> Outcome:
    ends = [tuple(float(end) for end in wilson(share, n)) for share in (fake, real)]
    return Outcome(name or f"strange {label}s", label, n, n, fake, ends[0], real, ends[1], known)  # type: ignore[arg-type]


def fit(
    hits: float = 0.95, misses: float = 0.02, alarms: float = 0.01, passes: float = 0.95, **more: object
) -> Fitness:
    tested = (part("real", alarms, passes), part("fake", hits, misses))
    return Fitness(("web",), ("stylegan2",), **{"tested": tested, "benign": 0.02, "audit": "pass", **more})  # type: ignore[arg-type]


def test_without_a_test_on_strangers_there_is_no_answer_and_no_number() -> None:
    reals, fakes = part("real", 0.01, 0.95), part("fake", 0.95, 0.02)
    few = dataclasses.replace(fakes, groups=29)
    known = dataclasses.replace(fakes, known="it learned from it")
    for tested in ((), (reals,), (fakes,), (reals, few), (reals, known)):
        found = fit(tested=tested)
        said = found.say(OWN, 0.5)
        assert found.grade == said.grade == "none" and "untested" in said.reasons
        assert (said.verdict, said.probability, said.low, said.high) == (NO_ANSWER, None, None, None)
        words = state(said, found.basis())
        assert (
            words.headline == "No reliable answer" and not words.number and "never tested on" in words.basis
        )
        assert "0.98" in words.folded and "in 100" not in str(words)
    assert fit().say(OWN, 0.5).verdict == "fake"


def test_a_test_that_went_no_better_than_guessing_is_no_answer_either() -> None:
    """As tried: 77 of 146 portraits called fake, 44 of 100 fakes found."""
    found = fit(hits=0.44, misses=0.56, alarms=77 / 146, passes=69 / 146)
    assert found.evidence == (1.0, 1.0) and found.grade == "none"
    assert found.say(OWN, 0.5).verdict == NO_ANSWER


def test_no_number_is_surer_than_the_test_allows() -> None:
    for n in (40, 300, 3000):
        found = fit(tested=(part("real", 0.02, 0.95, n), part("fake", 0.9, 0.05, n)))
        hits, alarms = wilson(0.9, n)[0], wilson(0.02, n)[1]
        said = found.say(OWN, 0.5)
        assert said.probability == pytest.approx(float(hits / (hits + alarms))) and said.probability < 0.99
        assert said.high is not None and said.high <= said.probability and "capped" in said.reasons
        assert "the most that its tests allow" in number(said) and "above 99" not in number(said)
    real = fit().say(Verdict(0.01, 0.0001, 0.0, 0.001, "real"), 0.5)
    assert real.verdict == "real" and real.probability is not None and real.probability > 0.01
    assert "the least that its tests allow" in number(real)


@pytest.mark.parametrize(
    ("more", "word", "most"),
    [({"audit": "fail"}, "A weak hint", 75), ({"benign": None}, "Probably", 90)],
)
def test_a_weak_word_has_no_strong_number(more: dict[str, object], word: str, most: int) -> None:
    for label, score in (("fake", 0.9999), ("real", 0.0001)):
        said = fit(**more).say(Verdict(score, score, score, score, label), 0.5)
        words = state(said)
        assert words.headline == f"{word}: {label}" if word == "A weak hint" else f"{word} {label}"
        assert f"about {most if label == 'fake' else 100 - most} in 100" in words.number
        assert "that its tests allow to say" in words.number


def test_the_worst_source_counts() -> None:
    good = fit()
    worse = fit(tested=(*good.tested, part("fake", 0.3, 0.6, name="sd14")))
    assert worse.evidence[1] < good.evidence[1] and worse.evidence[0] > good.evidence[0]
    said = worse.say(
        Verdict(0.01, 0.01, 0.0, 0.02, "real"), 0.5
    )  # it lets most of sd14 pass: real says nothing
    assert (said.verdict, said.reasons) == ("uncertain", ("unsupported",)) and worse.grade_of(
        "real"
    ) == "none"
    assert worse.say(OWN, 0.5).verdict == "fake"


def test_grades_rise_with_evidence_and_fall_with_flaws() -> None:
    assert fit().grade == "good"
    assert fit(benign=None).grade == "fair" and fit(benign=0.3).grade == "fair"
    assert fit(audit="fail").grade == "weak"
    assert fit(hits=0.5, alarms=0.15, misses=0.4, passes=0.8).grade in ("weak", "fair")
    for grade, headline in (
        ("weak", "A weak hint: fake"),
        ("fair", "Probably fake"),
        ("good", "Very probably fake"),
    ):
        said = dataclasses.replace(OWN, grade=grade)
        assert state(said).headline == headline


@pytest.mark.parametrize("probability", [0.001, 0.2, 0.49, 0.5, 0.51, 0.8, 0.999])
@pytest.mark.parametrize("prior", [0.01, 0.3, 0.5, 0.9])
def test_word_and_number_agree_at_every_prior(probability: float, prior: float) -> None:
    own = Verdict(
        probability, probability, probability, probability, "fake" if probability >= 0.5 else "real"
    )
    said = fit().say(own, 0.5, prior)
    assert said.prior == prior and said.probability is not None
    if said.verdict == "fake":
        assert said.probability >= 0.5
    elif said.verdict == "real":
        assert said.probability < 0.5
    else:
        assert "prior" in said.reasons and "share" in state(said).next
    if prior == 0.5:
        assert said.verdict == own.verdict


def test_a_moved_prior_moves_the_number_and_says_so() -> None:
    own = Verdict(0.8, 0.8, 0.7, 0.9, "fake")
    rare, even = fit().say(own, 0.5, 0.1), fit().say(own, 0.5)
    assert rare.probability == pytest.approx(
        0.8 / 0.2 / 9 / (1 + 0.8 / 0.2 / 9)
    ) and even.probability == pytest.approx(0.8)
    assert (rare.verdict, even.verdict) == ("uncertain", "fake")
    assert "where 10 in 100 are" in number(rare) and "where 50 in 100 are" in number(even)


def test_uncertain_is_an_instruction() -> None:
    for reason in (
        "near-threshold",
        "out-of-distribution",
        "compressed",
        "small-face",
        "unsupported",
        "prior",
    ):
        words = state(Verdict(0.5, 0.5, 0.4, 0.6, "uncertain", reasons=(reason,), grade="fair", prior=0.5))
        assert words.headline == "Uncertain" and len(words.next) > 20, reason
    assert opinion(Verdict(0.5, 0.5, 0.4, 0.6, "uncertain")).startswith("Uncertain: about 50 in 100")


def test_basis_names_what_it_learned_from_and_what_it_never_met() -> None:
    found = fit(tested=(part("real", 0.04, 0.9, name="portraits"), part("fake", 0.5, 0.3, name="sd14")))
    assert found.basis() == (
        "Learned from web and stylegan2; tested on portraits (12 of 300 reals called fake) and sd14 (150 of 300 fakes "
        "found); never tested on GANs, face swaps and other generators."
    )


def _card(**test: object) -> dict[str, object]:
    card: dict[str, object] = {
        "sources": ["web"],
        "generators": ["stylegan2"],
        "threshold": 0.5,
        "temperature": 1.0,
        "audit": {"verdict": "pass"},
    }
    parts = [
        {
            **dataclasses.asdict(part(label, *shares, name=f"new-{label}")),
            "fake_interval": [0.0, 0.02] if label == "real" else [0.9, 0.97],
            "real_interval": [0.9, 0.97] if label == "real" else [0.01, 0.05],
            "data": "d",
        }
        for label, shares in (("real", (0.01, 0.95)), ("fake", (0.95, 0.02)))
    ]
    record = {
        "model_hash": "m",
        "calibration": fitness.calibration_digest(card),
        "rows": "r",
        "scores": "s",
        "benign": None,
        "tested": parts,
        **test,
    }
    return fitness.added(card, record)


def test_a_record_holds_for_its_weights_its_calibration_and_as_it_was_written() -> None:
    card = _card()
    assert fitness.of_card(card, "m").grade == "fair"
    assert fitness.of_card(card, "other").flaws == ("its test on new-real and new-fake is of other weights",)
    moved = {**card, "threshold": 0.6}
    assert "before its last calibration" in fitness.of_card(moved, "m").flaws[0]
    card["fitness"]["tests"][0]["tested"][0]["fake_interval"] = [0.0, 0.001]  # type: ignore[index]
    changed = fitness.of_card(card, "m")
    assert changed.grade == "none" and "was changed" in changed.flaws[0]


def test_the_same_rows_again_replace_their_record() -> None:
    card = _card()
    again = fitness.added(card, {**card["fitness"]["tests"][0], "scores": "t"})  # type: ignore[index]
    assert len(again["fitness"]["tests"]) == 1 and fitness.of_card(again, "m").grade == "fair"


@pytest.mark.parametrize(
    ("label", "name", "known"),
    [
        ("fake", "stylegan2-web", "it learned from stylegan2:ab"),
        ("fake", "sd14", ""),
        ("fake", "", "the generator has no name"),
        ("real", "web", "it learned from web"),
        ("real", "portraits", ""),
        ("real", "kaggle-deepfake-real", "kaggle-deepfake-real is made from openforensics"),
    ],
)
def test_what_is_strange_to_a_detector(label: str, name: str, known: str) -> None:
    card = {"sources": ["web", "openforensics", "synth"], "generators": ["stylegan2:ab"]}
    assert fitness.why_known(card, label, name) == known


def test_a_card_that_does_not_say_what_it_learned_from_leaves_nothing_strange() -> None:
    assert "not known" in fitness.why_known({}, "fake", "sd14") and "not known" in fitness.why_known(
        {}, "real", "x"
    )
    older = {
        "validation_shares": [{"kind": "synthetic", "generator": "dcgan:1", "share": 0.5}],
        "sources": ["web"],
    }
    assert fitness.learned_generators(older) == ("dcgan:1",)
    assert fitness.learned_generators({"published": {"name": "x"}, "sources": ["FaceForensics++"]}) == (
        "FaceForensics++",
    )
