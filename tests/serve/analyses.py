"""An analysis made by hand, with all that one may hold."""

import numpy as np

from crossfake.datasets.toyfaces import toyface
from crossfake.detect.explain.traces import trace_maps
from crossfake.detect.verdict import FrameScore, MissedFace, Verdict
from crossfake.serve.engine.results import (
    Analysis,
    DetectorFacts,
    Example,
    FaceAnalysis,
    KeyFrame,
    StabilityPoint,
    Warning,
)


def opinion(probability: float, verdict: str, low: float | None = None, high: float | None = None) -> Verdict:
    return Verdict(probability, probability, low, high, verdict, 0.42)


def facts(name: str = "resnet18-0") -> DetectorFacts:
    return DetectorFacts(
        name,
        "resnet18",
        "c0ffee" * 10 + "beef",
        64,
        "faces",
        0.61,
        True,
        ("all-age-faces", "dcgan"),
        (("stylegan2", 500, 0.81), ("unseen-diffusion", 500, 0.34)),
        0.042,
        (0.031, 0.058),
        1000,
        ("It was trained on faces of 64 pixels and has never seen a diffusion model.",),
    )


def make_analysis(name: str = "photo.jpg", faces: int = 2, video: bool = False) -> Analysis:
    picture = np.full((240, 400, 3), 200, np.uint8)
    found = []
    for person in range(faces):
        crop = toyface(person, 64)
        x = 40 + 180 * person
        picture[60:188, x : x + 128] = crop.repeat(2, 0).repeat(2, 1)
        verdict, probability = (("fake", 0.93), ("uncertain", 0.55))[person % 2]
        both = {
            "resnet18-0": opinion(probability, verdict, probability - 0.1, min(1, probability + 0.05)),
            "frequency-0": opinion(0.999, "fake"),
            "ensemble": opinion((probability + 0.999) / 2, verdict, 0.5, 0.99),
        }
        frames = tuple(
            FrameScore(
                30 * n,
                float(n),
                0.5,
                0.5 + 0.4 * np.sin(n),
                "fake",
                (x, 60.0, 128.0, 128.0),
                {"resnet18-0": 0.5},
            )
            for n in range(12)
        )
        found.append(
            FaceAnalysis(
                person,
                (float(x) * 2, 120.0, 256.0, 256.0),
                both,
                crop,
                (Warning("compressed", "Strongly compressed JPEG (quality below 50): traces may be gone."),),
                ()
                if video
                else (
                    StabilityPoint("as sent", 0, probability),
                    StabilityPoint("JPEG", 70, 0.81),
                    StabilityPoint("resize", 0.5, None),
                ),
                np.roll(crop, 1, 2),
                np.zeros((64, 64), np.float32),
                "gradcam",
                np.full((64, 130, 3), 90, np.uint8),
                (Example(crop, "fake", "dcgan", 0.12), Example(crop, "real", "all-age-faces", 0.31)),
                frames if video else (),
                ("The frequency detector has no heat map.",),
            )
        )
    return Analysis(
        name,
        "ab" * 32,
        123_456,
        "video" if video else "image",
        800,
        480,
        1.23,
        "2026-01-02T03:04:05+00:00",
        "0.1.0",
        (facts(), facts("frequency-0")),
        tuple(found),
        (MissedFace("too small", (10.0, 10.0, 30.0, 30.0)),),
        "fake" if faces else "not judged",
        "Two detectors find signs of a generator in one of two faces.",
        (Warning("several", "More than one face: each is judged by itself."),),
        None if video else picture,
        11.0 if video else None,
        traces=() if video else trace_maps(picture),
        key_frames=(KeyFrame(0.0, picture), KeyFrame(None, picture)) if video else (),
    )
