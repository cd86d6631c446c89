import io
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")

from fastapi import FastAPI
from starlette.testclient import TestClient

from crossfake.datasets.decode import Unreadable
from crossfake.detect.verdict import FrameScore, Verdict
from crossfake.serve.engine.results import (
    Analysis,
    FaceAnalysis,
    StabilityPoint,
    Warning,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import DEFAULTS, Limits
from crossfake.serve.intake.receiving import Received
from crossfake.serve.web.batch import judge
from crossfake.serve.web.compare import show
from crossfake.serve.web.context import Context, merge_stability, problem, write_csv
from crossfake.serve.web.desk import Busy, Desk, Stopped, Tell
from crossfake.serve.web.routes import add_routes
from crossfake.serve.web.run_pages import Reports
from crossfake.serve.web.sessions import Sessions
from crossfake.serve.web.view import brief, curve, jpeg, render, steadiness, strip

from ..analyses import make_analysis


def _face(person: int = 0, probability: float = 0.8, **more: Any) -> FaceAnalysis:
    opinion = Verdict(probability, probability, probability - 0.1, probability + 0.1, "fake")
    return FaceAnalysis(person, (10, 10, 20, 20), {"small": opinion}, np.zeros((16, 16, 3), np.uint8), **more)


def _analysis(**more: Any) -> Analysis:
    values: dict[str, Any] = {
        "name": "x.jpg", "sha256": "0" * 64, "bytes": 10, "kind": "image", "width": 100, "height": 50,
        "seconds": 0.1, "when": "2026-01-01T00:00:00+00:00", "version": "1", "detectors": (), "faces": (_face(),),
        "missed": (), "verdict": "fake", "words": "Probably fake.", "picture": np.zeros((50, 100, 3), np.uint8),
    }  # fmt: skip
    return Analysis(**{**values, **more})


def _context(limits: Limits = DEFAULTS, key: Path | None = None) -> Context:
    nobody: Any = None  # no analysis is asked for
    return Context(nobody, limits, Desk(1), Sessions(), key=key)


# ---- the desk


def _wait(event: threading.Event) -> Any:
    def work(tell: Tell) -> str:
        while not event.wait(0.01):
            tell(0.5, "halfway")
        return "done"

    return work


def test_a_job_tells_its_steps_and_gives_its_result() -> None:
    desk, go = Desk(places=1), threading.Event()
    job = desk.start(_wait(go), threading.Event())
    steps = []
    for step in job:
        steps.append(step)
        if step.words == "halfway":
            go.set()
    assert steps[-1].share == 0.5 and job.result() == "done"


def test_the_next_waits_and_is_told_so_and_one_too_many_is_refused() -> None:
    desk, go = Desk(places=1, waiting=1), threading.Event()
    first, second = (desk.start(_wait(go), threading.Event()) for _ in range(2))
    steps = iter(second)
    assert next(steps).words == "Waiting: 1 before you"
    with pytest.raises(Busy, match="busy: 2 others"):
        desk.start(_wait(go), threading.Event())
    go.set()
    assert first.result() == second.result() == "done"


def test_work_stops_when_it_is_told_to_and_frees_its_place() -> None:
    desk, stop = Desk(places=1, waiting=0), threading.Event()
    job = desk.start(_wait(threading.Event()), stop)
    with pytest.raises(Stopped):
        for _ in job:
            stop.set()
    with pytest.raises(Stopped):
        job.result()
    for _ in range(200):
        try:
            assert desk.start(lambda tell: 1, threading.Event()).result() == 1
            break
        except Busy:
            time.sleep(0.01)
    else:
        pytest.fail("the place was never freed")


def test_a_visitor_who_leaves_stops_the_work() -> None:
    desk, stop = Desk(places=1), threading.Event()
    steps = iter(desk.start(_wait(threading.Event()), stop))
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert stop.is_set()


# ---- visitors


def test_what_a_visitor_sends_is_gone_with_the_next_case_and_with_the_visit(tmp_path: Path) -> None:
    sessions = Sessions()
    file = tmp_path / "secret name.jpg"
    file.write_bytes(b"x")
    case = sessions.of("a").begin("analyse")
    taken = case.take(file)
    assert not file.exists() and "secret" not in taken.name
    assert case.folder.parent.stat().st_mode & 0o077 == 0
    newer = sessions.of("a").begin("analyse")
    assert case.stop.is_set() and not taken.exists() and sessions.find(case.token) is None
    assert sessions.find(newer.token) is newer and sessions.current("a", "analyse", newer)
    sessions.close("a")
    assert not newer.folder.parent.exists() and sessions.find(newer.token) is None
    sessions.close_all()
    assert not sessions.uploads.root.exists()


def test_an_idle_visit_is_over() -> None:
    sessions = Sessions()
    idle = sessions.of("idle")
    idle.seen -= 7200
    other = sessions.of("other")
    sessions.sweep()
    assert not idle.folder.exists() and sessions.of("idle") is not idle
    assert other.folder.exists() and sessions.of("other") is other
    sessions.close_all()


def test_a_visitor_has_so_many_pages_open_and_nobody_elses() -> None:
    sessions = Sessions()
    first = sessions.of("0", "me")
    theirs = sessions.of("x", "you")
    for number in range(1, 9):
        sessions.of(str(number), "me")
    assert not first.folder.exists() and theirs.folder.exists()
    with pytest.raises(Refused, match="not a file that you have sent"):
        sessions.of("x", "me")
    sessions.close_all()


def test_links_are_found_while_tabs_begin_new_cases() -> None:
    sessions, over = Sessions(), threading.Event()
    session = sessions.of("a")

    def begin() -> None:
        number = 0
        while not over.is_set():
            number += 1
            session.begin(f"{number % 7}")
            session.cases.pop(f"{number % 5}", None)

    thread = threading.Thread(target=begin)
    thread.start()
    try:
        for _ in range(3000):
            assert sessions.find("guess") is None
    finally:
        over.set()
        thread.join()
        sessions.close_all()


def test_a_report_asked_for_too_late_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    page = _context(key=tmp_path / "key.pem")
    case = page.sessions.of("a").begin("analyse")
    page.offer_files(case, make_analysis(faces=1))
    make = case.downloads["report.html"]
    assert make().read_bytes().startswith(b"<!doctype html>")
    page.sessions.close("a")
    with pytest.raises(FileNotFoundError):
        make()
    assert not case.folder.parent.exists()


def test_a_warning_of_the_stability_test_is_kept() -> None:
    unstable = Warning("unstable", "It moves.")
    points = (StabilityPoint("as sent", 0, 0.9), StabilityPoint("JPEG", 70, 0.1))
    later = _analysis(faces=(_face(stability=points, warnings=(unstable,)),))
    (face,) = merge_stability(_analysis(), later).faces
    assert face.stability == points and face.warnings == (unstable,)


def test_many_archives_in_one_batch_are_added_up(tmp_path: Path) -> None:
    page = _context(limits=Limits(bytes_archive=20_000, files=3))
    case = page.sessions.of("a").begin("batch")
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")  # 11 kB
    sent = []
    for number in range(3):
        path = tmp_path / str(number)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", out.getvalue())
        sent.append(Received(path, "a.zip"))
    with pytest.raises(Refused) as caught:
        next(judge(page, case, sent))
    assert caught.value.code == "too-large" and sent[2].path.exists()  # the last one was not even opened
    page.sessions.close_all()


# ---- routes


def test_downloads_need_their_token(tmp_path: Path) -> None:
    sessions, app = Sessions(), FastAPI()
    add_routes(app, sessions, Reports())
    client = TestClient(app)
    case = sessions.of("a").begin("analyse")
    (case.folder / "made.json").write_text("{}")
    case.downloads["made.json"] = lambda: case.folder / "made.json"
    answer = client.get("/" + case.link("made.json"))
    assert answer.json() == {} and "attachment" in answer.headers["content-disposition"]
    assert client.get(f"/page/{case.token}/other").status_code == 404
    assert client.get("/page/guess/made.json").status_code == 404
    sessions.close_all()


# ---- what is shown


def test_text_of_strangers_is_escaped_and_fits_on_one_line() -> None:
    html = show(_analysis(name="<script>alert(1)</script>", words="a\n\n<b>b</b>"), None)
    assert "<script>" not in html and "<b>b</b>" not in html and "\n" not in html
    assert "/secret" not in problem(ValueError("/secret")) and problem(Unreadable("x", "y"))
    said = problem(Refused("too-large", "this is <i>large</i>", "send less"))
    assert "This is &lt;i&gt;large&lt;/i&gt;." in said and "Send less." in said


def test_a_strip_marks_every_point_and_says_whether_the_answer_holds() -> None:
    points = (
        StabilityPoint("as sent", 0, 0.9),
        StabilityPoint("JPEG", 70, 0.8),
        StabilityPoint("JPEG", 30, 0.2),
        StabilityPoint("resize", 0.5, None),
    )
    drawn = strip(points, 0.5)
    assert [mark["tone"] for mark in drawn["marks"]] == ["fake", "fake", "real", None]
    assert [(group["name"], group["count"]) for group in drawn["groups"]] == [
        ("as sent", 1),
        ("JPEG", 2),
        ("resize", 1),
    ]
    assert drawn["marks"][0]["y"] < drawn["marks"][2]["y"]
    assert "turn the answer around" in steadiness(points, 0.5)
    assert steadiness(points[:2], 0.5).endswith("The answer holds.")
    assert "score" in steadiness(points, 0.5, calibrated=False) and steadiness(points[:1], 0.5) == ""
    assert "no longer found" in steadiness((*points[:2], points[3]), 0.5)
    assert brief(1.0, False) == "score 0.99" and brief(0.0, False) == "score 0.01"
    assert brief(0.731, True) == "about 73 in 100" and brief(0.731, False) == "score 0.73"


def test_a_curve_runs_along_the_video() -> None:
    frames = tuple(
        FrameScore(25 * k, float(k), 0.5, 0.2 * (k + 1), "real", (0, 0, 9, 9), {"small": 0.2})
        for k in range(3)
    )
    drawn = curve(_face(frames=frames), ["a", "b", "c"], 0.5, 4.0, 100)
    assert [mark["x"] for mark in drawn["marks"]] == [0, 150, 300]
    assert drawn["worst"] == 2 and drawn["end"] == "0:04.0"
    untimed = tuple(FrameScore(k, None, 0.5, 0.5, "real", None) for k in (0, 99))
    assert [mark["x"] for mark in curve(_face(frames=untimed), ["a", "b"], 0.5, None, 100)["marks"]] == [
        0,
        600,
    ]


def test_large_pictures_are_sent_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    assert len(jpeg(noise, 96)) < 12_000
    assert jpeg(noise, 96).startswith("data:image/jpeg;base64,")


def test_a_table_holds_no_formulas(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv", [{"name": "=cmd()", "probability": -0.5}, {"name": "a,b", "probability": None}]
    )
    assert path.read_text("utf-8-sig").splitlines() == ["name,probability", "'=cmd(),-0.5", '"a,b",']


def test_every_template_stands_alone_on_one_line() -> None:
    assert render("status.html", share=0.5, words="Looking").startswith('<div class="cf">')
    assert "\n" not in render("about.html", facts=[])


def test_pyplot_is_imported_before_threads_do_it() -> None:
    """Half imported by one thread, it broke the first visitor's event in another."""
    code = "import sys, crossfake.serve.web.page; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
