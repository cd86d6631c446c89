import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.locking import lock_folder
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import MANIFEST, SPLITS, Row, ShardSet
from crossfake.datasets.verify import verify
from crossfake.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path, 8, shard_rows=10) as writer:
        for number, image in enumerate(IMAGES):
            writer.append(image, Row(0, "mine", origin=str(number)))
    return tmp_path


def test_a_whole_folder_has_no_problems(folder: Path) -> None:
    assert verify(folder) == []


def test_a_flipped_byte_is_found_in_its_row(folder: Path) -> None:
    raw = bytearray((folder / "00001.h5").read_bytes())
    raw[raw.index(IMAGES[14].tobytes()) + 7] ^= 0x40
    (folder / "00001.h5").write_bytes(raw)
    problems = verify(folder)
    assert len(problems) == 2
    assert problems[0] == f"{folder / '00001.h5'}: its bytes differ from the manifest's sha256"
    assert problems[1] == f"{folder / '00001.h5'}: row 4 is damaged"


def test_a_truncated_file_is_found(folder: Path) -> None:
    file = folder / "00002.h5"
    file.write_bytes(file.read_bytes()[:-2000])
    problems = verify(folder)
    assert any("00002.h5" in p and "truncated or damaged" in p for p in problems)
    assert all("00002.h5" in p for p in problems)


def test_a_missing_shard_is_found(folder: Path) -> None:
    (folder / "00001.h5").unlink()
    assert verify(folder) == [f"{folder / '00001.h5'}: missing"]


def test_a_shard_missing_from_the_manifest_too_is_found(folder: Path) -> None:
    (folder / "00001.h5").unlink()
    lines = (folder / MANIFEST).read_text().splitlines()
    (folder / MANIFEST).write_text(f"{lines[0]}\n{lines[2]}\n")
    (problem,) = verify(folder)
    assert "00001.h5" in problem and "later shards are" in problem


def test_a_wrong_count_is_found(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]
    lines[0]["count"] = 9
    (folder / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify(folder) == [f"{folder / '00000.h5'}: holds 10 rows, the manifest says 9"]


def test_leftovers_and_strangers_are_found(folder: Path) -> None:
    (folder / "00003.h5.tmp").write_bytes(b"")
    (folder / "00007.h5").write_bytes((folder / "00000.h5").read_bytes())
    with open(folder / MANIFEST, "a") as file:
        file.write('{"name": "000')
    problems = verify(folder)
    assert len(problems) == 3
    assert any("00003.h5.tmp" in p and "was stopped" in p for p in problems)
    assert any("00007.h5" in p and "not listed" in p for p in problems)
    assert any(MANIFEST in p and "1 line unreadable" in p for p in problems)


def test_a_folder_without_a_manifest_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a shard folder"):
        verify(tmp_path)


def test_splits_of_other_rows_are_found(folder: Path) -> None:
    lines = ["origin,group,split", *(f"{number},g,train" for number in range(30))]
    (folder / SPLITS).write_text("\n".join(lines) + "\n")
    assert verify(folder) == []
    (folder / SPLITS).write_text("\n".join(lines).replace("\n3,g,train", "\n3,g,later") + "\n")
    assert verify(folder) == [f"{folder / SPLITS}: 'later' is no split"]
    (folder / SPLITS).write_text("\n".join(lines).replace("\n3,", "\n99,") + "\n")
    (problem,) = verify(folder)
    assert "belongs to other shards" in problem


def test_a_shard_that_is_listed_twice_alike_is_no_fault(folder: Path) -> None:
    lines = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(lines + lines.splitlines()[1] + "\n")
    assert verify(folder) == []
    assert ShardSet(folder).counts == [10, 10, 10]


def test_a_shard_that_is_listed_twice_and_not_alike_is_one_line(folder: Path) -> None:
    lines = (folder / MANIFEST).read_text()
    other = {**json.loads(lines.splitlines()[1]), "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(other) + "\n" + lines)
    (problem,) = verify(folder)
    assert problem.startswith(str(folder / MANIFEST)) and "lists 00001.h5 twice and not alike" in problem


def test_a_shard_that_is_being_written_is_one_line(folder: Path) -> None:
    shard = folder / "00001.h5"
    code = f"import h5py, sys; f = h5py.File({str(shard)!r}, 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline()
        (problem,) = verify(folder)
        assert problem.startswith(f"{shard}: another process has it open for writing")
        writer.communicate()
    assert verify(folder) == []


@pytest.mark.parametrize("team", ["", "a"])
def test_a_folder_that_is_being_written_is_one_line(team: str, folder: Path) -> None:
    lock = lock_folder(folder, team)
    (folder / "00003.h5.tmp").write_bytes(b"")
    assert verify(folder) == [f"{folder}: another process writes to it: verify it when that has ended"]
    os.close(lock)  # killed
    (problem,) = verify(folder)
    assert "left by a writer that was stopped" in problem


def test_a_shard_that_cannot_be_read_is_one_line(folder: Path) -> None:
    shard = folder / "00001.h5"
    shard.unlink()
    shard.mkdir()
    assert verify(folder) == [f"{shard}: cannot be read (Is a directory)"]


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_a_damaged_native_row_is_named(codec: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "set", codec=codec) as writer:
        for k in range(3):
            writer.append(rng.integers(0, 256, (200 + k, 210, 3), dtype=np.uint8), Row(0, "x"))
    assert verify(tmp_path / "set") == []
    file = tmp_path / "set" / "00000.h5"
    content = bytearray(file.read_bytes())
    shards = ShardSet(tmp_path / "set")
    stored = shards.stored(0)
    shards.file(0).close()  # HDF5 has one cache for a file, however often it is open
    start = content.find(stored[:500] if codec == "webp" else stored.tobytes()[:500])
    content[start + 100] ^= 255
    file.write_bytes(content)
    assert any("row 0 is damaged" in line for line in verify(tmp_path / "set"))
