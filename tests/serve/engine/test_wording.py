import dataclasses

import numpy as np

from crossfake.detect.prediction.verdicts import REASONS
from crossfake.detect.verdict import Verdict
from crossfake.serve.engine.results import DetectorFacts, FaceAnalysis
from crossfake.serve.engine.wording import (
    WARNINGS,
    conclusion,
    facts_words,
    in_100,
    interval,
    opinion,
    warning,
)


def face(verdict: str, probability: float, box: tuple[float, ...] | None = (0, 0, 9, 9)) -> FaceAnalysis:
    low, high = max(0.0, probability - 0.05), min(1.0, probability + 0.05)
    said = Verdict(probability, probability, low, high, verdict)
    return FaceAnalysis(0, box, {"a": said}, np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type]


def test_every_reason_of_a_prediction_has_a_sentence() -> None:
    assert set(REASONS) <= set(WARNINGS)
    assert all(warning(code).words.endswith(".") for code in WARNINGS)


def test_nothing_is_certain() -> None:
    for value in np.linspace(0, 1, 1001).tolist():
        words = [in_100(value), interval(value, 1.0), interval(0.0, value)]
        for verdict in ("real", "fake", "uncertain"):
            words.append(opinion(Verdict(value, value, value, value, verdict)))
            words.append(opinion(Verdict(value, value, None, None, verdict)))
        said = " ".join(words).replace("95% interval", "").replace("in 100", "")
        assert "%" not in said and not {"100", "0", "1.00", "0.00"} & set(said.split())


def test_what_a_detector_does_not_know_is_said_so() -> None:
    strange = Verdict(0.01, 0.01, 0.0, 0.02, "uncertain", 1.0, ("out-of-distribution",))
    assert "unlike nearly all pictures that the detector knows" in opinion(strange)
    assert "not clear enough" in opinion(Verdict(0.5, 0.5, 0.4, 0.6, "uncertain"))


def test_one_sentence_on_a_file() -> None:
    assert conclusion("image", [face("fake", 0.97)], "fake") == (
        "The face in this picture is probably fake: about 97 in 100 such pictures are "
        "(95% interval: 92 to above 99 in 100). This is not proof."
    )
    two = conclusion("video", [face("uncertain", 0.5), face("real", 0.1)], "uncertain")
    assert two.startswith("Of 2 people the most suspicious is uncertain: about 50 in 100")
    assert "detectors" not in two
    assert conclusion("image", [face("real", 0.001, None)], "real").startswith(
        "This picture is probably real"
    )
    none = conclusion("image", [], "not judged", "no face")
    assert none == "This picture was not judged: no face. That says nothing about it."


def test_facts_say_what_is_not_known() -> None:
    plain = DetectorFacts("d", "cnn", "0", 64, "faces", 0.5, True, ("faces", "dcgan"))
    words = " ".join(facts_words(plain, unknown="it was not evaluated"))
    assert "is not known: it was not evaluated" in words and "never seen any other generator" in words
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


def test_only_detectors_that_judged_a_face_are_counted() -> None:
    one = face("fake", 0.9)
    said = one.opinion
    alone = dataclasses.replace(one, per_detector={"a": said, "ensemble": said})
    both = dataclasses.replace(one, per_detector={"a": said, "b": said, "ensemble": said})
    assert "together" not in conclusion("image", [alone], "fake")
    assert "by 2 detectors together" in conclusion("image", [both], "fake")


def test_a_threshold_far_from_one_half_is_not_called_probable() -> None:
    assert opinion(Verdict(0.3, 0.3, 0.25, 0.35, "fake")) == (
        "called fake, though about 30 in 100 such pictures are fake (95% interval: 25 to 35 in 100)"
    )
    assert opinion(Verdict(0.7, 0.7, 0.6, 0.8, "real")).startswith("called real, though about 70 in 100")
