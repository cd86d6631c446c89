"""Errors that go from one process to another stay what they are."""

import pickle
import re
from pathlib import Path

import pytest

from crossfake import errors
from crossfake.errors import MissingDependency, UserError
from crossfake.stopping import StoppedByUser


@pytest.mark.parametrize(
    "error",
    [UserError("a", hint="b"), UserError("a"), MissingDependency("av", "video"), StoppedByUser("the work")],
)
def test_errors_cross_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.hint == error.hint


class Installed:
    def __init__(self, direct_url):
        self.direct_url = direct_url
        self.requires = [
            "click",
            'av>=12; extra == "video"',
            'uvicorn; python_version > "3" and extra == "app"',
            'fastapi; extra == "app"',
            'apple; extra == "apple"',
        ]

    def read_text(self, name):
        return self.direct_url if name == "direct_url.json" else None


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        (
            '{"url": "file:///x", "dir_info": {"editable": true}}',
            "pip install -c constraints.txt -e '.[app]' in",
        ),
        ('{"url": "file:///x", "dir_info": {}}', "pip install -c constraints.txt '.[app]' in"),
        ('{"url": "file:///x/crossfake.whl", "archive_info": {}}', "pip install uvicorn fastapi"),
        (None, "pip install uvicorn fastapi"),
        ("no json", "pip install uvicorn fastapi"),
    ],
)
def test_a_missing_package_names_what_works_for_this_installation(direct_url, expected, monkeypatch):
    # beside an egg-info, as a checkout's folder holds one
    monkeypatch.setattr(errors, "distributions", lambda name: [Installed(None), Installed(direct_url)])
    error = MissingDependency("uvicorn", "app")
    assert error.message == "this needs the package uvicorn" and error.hint.startswith(expected)
    assert "crossfake[" not in str(error) and "/x" not in str(error)


def test_without_an_installation_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(errors, "distributions", lambda name: [])
    assert MissingDependency("uvicorn", "app").hint == "install what brings app"


def test_nothing_tells_anyone_to_install_a_package_that_is_not_ours():
    root = Path(__file__).parents[2]
    parts = ("core", "datasets", "synth", "detect", "serve", "experiments", "docs")
    files = [*root.glob("*.md"), *(f for part in parts for f in (root / part).rglob("*.*"))]
    files = [f for f in files if f.suffix in (".py", ".md", ".html", ".yaml") and f.name != "CHANGELOG.md"]
    named = [str(f) for f in files if re.search(r"crossfake\[\w+\]", f.read_text())]
    assert named == []
