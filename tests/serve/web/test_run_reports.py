from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI
from starlette.testclient import TestClient

from crossfake.errors import UserError
from crossfake.serve.intake.headers import Refused
from crossfake.serve.web.pages import Site, routes
from crossfake.serve.web.run_reports import Reports

PAGE = """<!doctype html><title>Fine &amp; good</title><link rel=stylesheet href="look.css">
<link rel=icon href=icon.png><style>body { background: url('../shared/paper.png') }</style>
<img src="figures/curve.png?v=1" srcset="figures/two.png 2x">
<img src="data:image/png;base64,AA=="><img src="/etc/passwd"><img src="../../out.png"><img src="figures/out.png">
<img src="environment.json"><img src="https://example.org/x.png"><a href="scores.csv">scores</a>
<a href="face.png">face</a>"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished study with all that is nobody's business, and another one that was not named."""
    root = tmp_path / "runs"
    for path in (
        "a/look.css",
        "a/icon.png",
        "shared/paper.png",
        "a/figures/curve.png",
        "a/figures/two.png",
        "a/face.png",
        "a/environment.json",
        "a/scores.csv",
        "a/model/bundle.json",
        "a/samples/1.png",
        "a/.hidden.html",
        "a/sheet.png",
        "b/report.html",
        "b/scores.csv",
        "notes.txt",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    (root / "a" / "look.css").write_text("h1 { background: url(sheet.png) }")
    (root / "a" / "report.html").write_text(PAGE)
    (tmp_path / "out.html").write_text("no")
    (tmp_path / "out.png").write_text("no")
    (root / "a" / "link.html").symlink_to(tmp_path / "out.html")
    (root / "a" / "figures" / "out.png").symlink_to(tmp_path / "out.png")
    return root


def _statuses(reports: Reports, runs: Path) -> set[str]:
    """Which of all files below the folder of runs are answered, and that nothing else is."""
    nobody: Any = None  # no visitor comes
    app = FastAPI()
    app.include_router(routes(Site(nobody, nobody, reports=reports)))
    client = TestClient(app)

    def shown(path: str) -> bool:
        try:
            answer = client.get(f"/runs/{path}")
        except Refused as refused:
            assert refused.code == "not-found"
            return False
        if answer.status_code != 200:
            return False
        assert "sandbox" in answer.headers["content-security-policy"]
        return True

    for path in ("%2e%2e/out.html", "..%2fout.png", "a/../../out.html", "a", "a%00.html", "/etc/passwd"):
        assert not shown(path), path
    names = [path.relative_to(runs).as_posix() for path in runs.rglob("*") if not path.is_dir()]
    return {name for name in names if shown(name)}


def test_only_pages_that_are_named_are_served(runs: Path) -> None:
    assert _statuses(Reports(runs, (runs / "a" / "report.html",)), runs) == {"a/report.html"}
    assert _statuses(Reports(runs, (runs / "a",)), runs) == {"a/report.html"}
    assert _statuses(Reports(runs), runs) == _statuses(Reports(), runs) == set()
    assert Reports(runs, (runs / "a",)).pages() == {"a/report.html": "Fine & good"}
    assert set(Reports(runs, (runs,)).pages()) == {"a/report.html", "b/report.html"}


def test_pages_of_a_run_in_progress_are_not_listed(tmp_path: Path) -> None:
    for name in ("going", "over"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("kind: synth\n")
        (tmp_path / name / "quality.html").write_text("<title>Q</title>")
    (tmp_path / "over" / "finished.json").write_text('{"time": 1}')
    assert list(Reports(tmp_path, (tmp_path,)).pages()) == ["over/quality.html"]


def test_reports_that_are_no_pages_are_refused(runs: Path, tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "out.html", "is not below"),
        (runs / "a" / "scores.csv", "is no page"),
        (runs / "missing", "is no page"),
        (runs / "a" / "link.html", "is not below"),
    ):
        with pytest.raises(UserError, match=words):
            Reports(runs, (path,))
