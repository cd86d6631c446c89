"""Off a terminal a bar is a line per tenth; on one it is tqdm's own."""

import io
import re
from pathlib import Path

import pytest

from crossfake import progress
from crossfake.progress import tqdm

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its last entry is the time."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[-1])
    return now


def run(clock: list[float], seconds: float, count: int = 100, **options: object) -> list[str]:
    told = io.StringIO()
    with tqdm(file=told, mininterval=0, miniters=1, **options) as bar:
        for _ in range(count):
            clock.append(clock[-1] + seconds)
            bar.update()
            bar.set_postfix(loss="0.5")
    return told.getvalue().splitlines()


def test_a_line_per_tenth_of_long_work(clock: list[float]) -> None:
    lines = run(clock, 1.0, total=100, desc="train", unit="step")
    assert [re.findall(r"\d+/100", line)[0] for line in lines] == [f"{k}/100" for k in range(10, 101, 10)]
    assert re.fullmatch(r"train:  40% 40/100 \[.*<.*, .*step/s.*, loss=0.5\]", lines[3])


def test_short_work_is_told_once_and_passing_work_not_at_all(clock: list[float]) -> None:
    assert [line[:16] for line in run(clock, 0.01, total=100, desc="read")] == ["read: 100% 100/1"]
    assert run(clock, 0.01, total=100, leave=False) == []
    assert run(clock, 1.0, total=100, disable=True) == []


def test_work_that_goes_on_begins_at_its_tenth(clock: list[float]) -> None:
    lines = run(clock, 1.0, count=30, total=100, initial=70)
    assert [re.findall(r"\d+/100", line)[0] for line in lines] == ["80/100", "90/100", "100/100"]


def test_a_line_a_minute_where_no_total_is_known(clock: list[float]) -> None:
    lines = run(clock, 1.0, count=150, unit="file", desc="predict")
    assert [line.split("file")[0] for line in lines] == ["predict: 60", "predict: 120", "predict: 150"]


def test_two_bars_and_written_lines_do_not_mix(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr("sys.stderr", told)
    monkeypatch.setattr("sys.stdout", told)
    with tqdm(total=2, desc="outer") as outer:
        for _ in range(2):
            for _ in tqdm(range(3), desc="inner"):
                clock.append(clock[-1] + 5)
                tqdm.write("a word")
            outer.update()
    assert re.fullmatch(r"((a word|(inner|outer): .*\])\n)+", told.getvalue()) and "\r" not in told.getvalue()


def test_on_a_terminal_it_is_a_bar() -> None:
    told = Terminal()
    for _ in tqdm(range(3), desc="count", file=told):
        pass
    assert "\r" in told.getvalue() and "count: 100%|" in told.getvalue()


def test_every_bar_is_this_one() -> None:
    parts = ("core", "datasets", "synth", "detect", "serve", "experiments")
    files = [file for part in parts for file in (ROOT / part).rglob("*.py")]
    named = [
        str(file.relative_to(ROOT))
        for file in files
        if re.search(r"^\s*(from tqdm|import tqdm)", file.read_text(), re.M)
    ]
    assert named == ["core/progress.py"]
