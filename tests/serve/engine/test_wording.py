import dataclasses

import numpy as np

from crossfake.detect.verdict import REASONS, Verdict
from crossfake.detect.wording import in_100, interval, opinion, state
from crossfake.serve.engine.results import DetectorFacts, FaceAnalysis
from crossfake.serve.engine.wording import WARNINGS, conclusion, facts_words, warning


def face(verdict: str, probability: float, box: tuple[float, ...] | None = (0, 0, 9, 9)) -> FaceAnalysis:
    low, high = max(0.0, probability - 0.05), min(1.0, probability + 0.05)
    said = Verdict(probability, probability, low, high, verdict, grade="fair", prior=0.5)
    crop = np.zeros((8, 8, 3), np.uint8)
    return FaceAnalysis(0, box, {"a": said}, crop, says=state(said))  # type: ignore[arg-type]


def test_every_reason_of_a_prediction_has_a_sentence() -> None:
    assert set(REASONS) <= set(WARNINGS)
    assert all(warning(code).words.endswith(".") for code in WARNINGS)


def test_nothing_is_certain() -> None:
    for value in np.linspace(0, 1, 1001).tolist():
        words = [in_100(value), interval(value, 1.0), interval(0.0, value)]
        for verdict in ("real", "fake", "uncertain"):
            words.append(opinion(Verdict(value, value, value, value, verdict, prior=value)))
            words.append(opinion(Verdict(value, value, None, None, verdict)))
        said = " ".join(words).replace("95% interval", "").replace("in 100", "")
        assert "%" not in said and not {"100", "0", "1.00", "0.00"} & set(said.split())


def test_what_a_detector_does_not_know_is_said_so() -> None:
    strange = Verdict(0.01, 0.01, 0.0, 0.02, "uncertain", 1.0, ("out-of-distribution",))
    assert "unlike the pictures that the detector knows" in state(strange).next


def test_a_few_sentences_on_a_file() -> None:
    assert conclusion("image", [face("fake", 0.97)]).startswith(
        "Probably fake, about 97 in 100 such pictures are fake (95% interval: 92 to above 99 in 100), where 50 in 100 "
        "are. This is not proof."
    )
    two = conclusion("video", [face("uncertain", 0.5), face("real", 0.1)])
    assert two.startswith("Of 2 people the most suspicious: Uncertain, about 50 in 100")
    assert "detectors" not in two and "Both are plausible" in two
    several = dataclasses.replace(face("real", 0.001, None), count="2 of 2 detectors say real")
    assert "2 of 2 detectors say real." in conclusion("image", [several])
    none = conclusion("image", [], "no face")
    assert none == "This picture was not judged: no face. That says nothing about it."


def test_facts_say_what_is_not_known() -> None:
    plain = DetectorFacts("d", "cnn", "0", 64, "faces", 0.5, True, ("faces", "dcgan"))
    words = " ".join(facts_words(plain, unknown="it was not evaluated"))
    assert "is not known: it was not evaluated" in words
    measured = DetectorFacts(
        "d",
        "cnn",
        "0",
        64,
        "faces",
        0.5,
        False,
        (),
        (("a", 500, 0.99), ("b", 500, 0.1)),
        0.02,
        (0.01, 0.04),
        300,
    )
    words = " ".join(facts_words(measured, "audit: FAIL"))
    assert "Of 300 real test pictures it called 2.0% fake (95% interval: 1.0% to 4.0%)." in words
    assert "It misses most fakes of b." in words and "never calibrated" in words and "audit: FAIL" in words
