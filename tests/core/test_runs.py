import json
import os
from pathlib import Path

import pytest

from crossfake.errors import UserError
from crossfake.runs import Run, newest_run, newest_synthetic


def test_a_run_keeps_config_environment_and_log(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "x", {"data": Path("faces"), "kimg": 2.0, "sizes": (1, 2)}, kind="synth")
    run.log({"loss": 0.5}, step=1)
    run.log({"loss": 0.25}, step=2)
    run.close()
    assert run.config == {"kind": "synth", "data": "faces", "kimg": 2.0, "sizes": [1, 2]}
    assert json.loads((run.path / "environment.json").read_text())["packages"]["torch"]
    assert run.log_lines() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    run.trim_log(1)
    assert [line["step"] for line in run.log_lines()] == [1]
    assert list(run.path.glob("events.out.tfevents*"))


def test_an_old_run_is_not_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path, {}, kind="synth")
    with pytest.raises(UserError, match="--resume"):
        Run.create(tmp_path, {}, kind="synth")
    Run.create(tmp_path, {}, kind="synth", resume=True)


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another --out"):
        Run.create(tmp_path / "file" / "run", {}, kind="synth")


def test_newest_run_is_the_last_finished_of_its_kind(tmp_path: Path) -> None:
    assert newest_run("synth", tmp_path) is None
    for name, kind in (("a", "synth"), ("b", "synth"), ("c", "detect")):
        Run.create(tmp_path / name, {}, kind=kind).finish()
    Run.create(tmp_path / "unfinished", {}, kind="synth")
    assert newest_run("synth", tmp_path) == tmp_path / "b"
    assert newest_run("detect", tmp_path) == tmp_path / "c"


def test_newest_synthetic_is_the_last_completed_folder(tmp_path: Path) -> None:
    assert newest_synthetic(tmp_path) is None
    for age, name in ((100, "old"), (50, "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "generated.json").write_text("{}")
        os.utime(tmp_path / name / "generated.json", (1e9 - age, 1e9 - age))
    assert newest_synthetic(tmp_path) == tmp_path / "new"
