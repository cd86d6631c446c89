"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from crossfake.errors import UserError
from crossfake.files import replacing, write_json, write_text
from crossfake.fit.checkpoints import save_state


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_write_text_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "1")
    write_text(tmp_path / "a.json", "2\n\udcff")
    assert contents(tmp_path) == {"a.json": b"2\n\xff"}


def test_write_json_keeps_the_old_file_where_a_value_has_no_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": tmp_path, "n": 1}, default=str)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": str(tmp_path), "n": 1}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("shared", [False, True])
def test_what_goes_wrong_leaves_the_old_file(tmp_path: Path, error: BaseException, shared: bool) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(type(error)), replacing(tmp_path / "a", shared=shared) as temporary:
        temporary.write_bytes(b"half of the n")
        raise error
    assert contents(tmp_path) == {"a": b"old"}


def test_nothing_written_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    assert contents(tmp_path) == {"a": b"old"}


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as temporary:
        left = temporary.name
        temporary.write_bytes(b"new")
    (tmp_path / left).write_bytes(b"left by a killed process, and longer")
    write_text(tmp_path / "a", "newer")
    assert contents(tmp_path) == {"a": b"newer"}


def test_processes_that_share_a_file_write_apart(tmp_path: Path) -> None:
    with replacing(tmp_path / "a", shared=True) as temporary:
        assert str(os.getpid()) in temporary.name
        temporary.write_bytes(b"1")
    assert contents(tmp_path) == {"a": b"1"}


def test_a_checkpoint_on_a_full_disk_says_so_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path / "1.pt", {"step": 1})
    before = contents(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="1.pt"):
        save_state(tmp_path / "1.pt", {"step": 2})
    assert contents(tmp_path) == before
