import dataclasses

import numpy as np
import pytest

pytest.importorskip("fastapi")

from pathlib import Path
from typing import Any

from crossfake.datasets.decode import Unreadable
from crossfake.detect.verdict import FrameScore, Verdict
from crossfake.serve.engine.results import FaceAnalysis, StabilityPoint
from crossfake.serve.intake.headers import Refused
from crossfake.serve.showing import brief, jpeg, over_time, render, steadiness, strip
from crossfake.serve.web.work import BatchRow, _write_csv, problem, show_pair

from .analyses import make_analysis

TEMPLATES = Path(__file__).parents[2] / "serve" / "web" / "templates" / "page"


def _face(**more: Any) -> FaceAnalysis:
    opinion = Verdict(0.8, 0.8, 0.7, 0.9, "fake")
    return FaceAnalysis(0, (10, 10, 20, 20), {"small": opinion}, np.zeros((16, 16, 3), np.uint8), **more)


def test_text_of_strangers_is_escaped() -> None:
    analysis = make_analysis(name="<script>alert(1)</script>\"'")
    for html in (show_pair([analysis, analysis]), render("result.html", analysis=analysis, case=None)):
        assert "<script>" not in html and 'alert(1)"' not in html
    assert "/secret" not in problem(ValueError("/secret")) and problem(Unreadable("x", "y"))
    said = problem(Refused("too-large", "this is <i>large</i>", "send less"))
    assert "This is &lt;i&gt;large&lt;/i&gt;." in said and "Send less." in said


def test_a_strip_marks_every_point_and_says_whether_the_answer_holds() -> None:
    points = (
        StabilityPoint("as sent", 0, 0.9, verdict="fake"),
        StabilityPoint("JPEG", 70, 0.8, verdict="fake"),
        StabilityPoint("JPEG", 50, 0.6, verdict="uncertain"),
        StabilityPoint("JPEG", 30, 0.2, verdict="real"),
        StabilityPoint("resize", 0.5, None),
    )
    drawn = strip(_face(stability=points))
    marks = {line["color"]: (line["symbol"], line["dots"]) for line in drawn["lines"] if line["dots"]}
    assert [(symbol, len(dots)) for symbol, dots in marks.values()] == [
        ("triangle", 2),
        ("diamond", 1),
        ("circle", 1),
    ]
    assert [label for _, label in drawn["x_ticks"]] == ["as sent", "JPEG 70", "JPEG 50", "JPEG 30", "0.5× ?"]
    assert marks[1][1][0][1] < 75 < marks[3][1][0][1]  # fake above one half
    assert "another after JPEG 50, JPEG 30, resize 0.5" in steadiness(_face(stability=points))
    same = steadiness(_face(stability=points[:2]))
    assert same.endswith("The answer stays the same after every change.") and "score" not in same
    bare = {"small": Verdict(0.8, 0.8, None, None, "fake")}
    assert "score" in steadiness(dataclasses.replace(_face(stability=points), per_detector=bare))
    unsure = steadiness(_face(stability=(points[2], *points[:2])))
    assert "no answer to hold" in unsure and "holds" not in unsure
    assert brief(1.0, False) == "score 0.99" and brief(0.0, False) == "score 0.01"
    assert brief(0.731, True) == "about 73 in 100" and brief(0.731, False) == "score 0.73"


def test_a_curve_runs_along_the_video() -> None:
    frames = tuple(
        FrameScore(25 * k, float(k), 0.5, 0.2 * (k + 1), "real", (0, 0, 9, 9), {"small": 0.2})
        for k in range(3)
    )
    drawn = over_time(_face(frames=frames), 4.0)
    assert drawn is not None and drawn["panel"].xlabel == "seconds"
    places = [x for x, _ in drawn["moments"]]
    assert places == [x for line in drawn["lines"] for x, _ in line["dots"]] and places == sorted(places)
    assert places[0] > 0 and places[2] < 600 / 2 + 1 and drawn["lines"][1]["path"].count("L") == 2
    untimed = tuple(FrameScore(k, None, 0.5, 0.5, "real", None) for k in (0, 99))
    shown = over_time(_face(frames=untimed))
    assert shown is not None and shown["panel"].xlabel == "frame" and shown["panel"].limits[0] == (0.0, 99.0)
    assert over_time(_face(frames=untimed[:1])) is None


def test_each_detector_says_what_it_looks_at() -> None:
    page = render("result.html", analysis=make_analysis(), case=None)
    assert page.count("looks at faces") == 4  # two faces, two detectors with facts


def test_maps_say_how_they_mislead_and_key_frames_when_they_are() -> None:
    page = render("traces.html", analysis=make_analysis())
    assert page.count("<img") == 2 and "no sign of an edit" in page and "asks a question" in page
    page = render("traces.html", analysis=make_analysis(video=True))
    assert page.count("<img") == 2 and "0:00.0" in page and "Error levels" not in page


def test_large_pictures_are_sent_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    assert len(jpeg(noise, 96)) < 12_000
    assert jpeg(noise, 96).startswith("data:image/jpeg;base64,")


def test_a_table_holds_no_formulas(tmp_path: Path) -> None:
    path = _write_csv(tmp_path / "t.csv", [BatchRow("=cmd()", "0f", "fake", 0.5, 1), BatchRow("a,b", "")])
    assert path.read_text("utf-8-sig").splitlines() == [
        "name,sha256,verdict,probability,faces,remarks",
        "'=cmd(),0f,fake,0.5,1,",
        '"a,b",,not judged,,0,',
    ]


def test_no_template_has_what_the_headers_forbid() -> None:
    """A style or a script inside the page is not applied, and nobody would see why."""
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert " style=" not in text and "<style" not in text and " on" + "click" not in text, path.name
        assert "<script>" not in text and "javascript:" not in text and "hx-on" not in text, path.name
    assert "%" in render("result.html", analysis=make_analysis(), case=None)
