import hashlib
import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.locking import leave_folder, lock_folder
from crossfake.datasets.shard_writer import ShardFile, ShardWriter
from crossfake.datasets.shards import MANIFEST, Row, ShardSet, read_manifest
from crossfake.errors import UserError


def _images(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _row(number: int) -> Row:
    return Row(
        number % 2,
        "mine",
        "gan:1" if number % 2 else "",
        ("train", "val")[number % 3 == 0],
        f"g{number}",
        number,
        f"{number}.png",
    )


def _write(folder: Path, images: np.ndarray, **options: object) -> Path:
    with ShardWriter(folder, size=images.shape[1], **options) as writer:
        writer.extend(images, map(_row, range(len(images))))
    return folder


@pytest.mark.parametrize("codec", ["raw", "webp"])
@pytest.mark.parametrize(("count", "shard_rows"), [(1, 10), (64, 64), (150, 70), (140, 70)])
def test_round_trip(codec: str, count: int, shard_rows: int, tmp_path: Path) -> None:
    images = _images(count)
    shards = ShardSet(
        _write(tmp_path, images, codec=codec, shard_rows=shard_rows, attributes={"crop": {"policy": "none"}})
    )
    assert len(shards) == count and shards.counts == [
        min(shard_rows, count - s) for s in range(0, count, shard_rows)
    ]
    assert np.array_equal(shards.read_many(range(count)), images)
    assert np.array_equal(shards.read(count - 1), images[-1])
    assert (shards.size, shards.codec, shards.attributes) == (8, codec, {"crop": {"policy": "none"}})
    for name in ("label", "source", "generator", "split", "group", "seed", "origin"):
        assert shards.columns[name].tolist() == [getattr(_row(n), name) for n in range(count)]
    assert not list(tmp_path.glob("*.tmp*"))


def test_original_keeps_the_files_bytes(tmp_path: Path) -> None:
    blobs = []
    for size in ((5, 9), (30, 20)):
        buffer = io.BytesIO()
        Image.new("RGB", size, "red").save(buffer, "PNG")
        blobs.append(buffer.getvalue())
    with ShardWriter(tmp_path, codec="original") as writer:
        writer.extend(blobs, [_row(0), _row(1)])
    shards = ShardSet(tmp_path)
    assert [shards.stored(k) for k in range(2)] == blobs
    assert [shards.read(k).shape for k in range(2)] == [(9, 5, 3), (20, 30, 3)]
    assert shards.size is None


def test_the_manifest_says_name_count_and_sha256(tmp_path: Path) -> None:
    _write(tmp_path, _images(25), shard_rows=10)
    lines = [json.loads(line) for line in (tmp_path / MANIFEST).read_text().splitlines()]
    assert [(line["name"], line["count"]) for line in lines] == [
        ("00000.h5", 10),
        ("00001.h5", 10),
        ("00002.h5", 5),
    ]
    for line in lines:
        assert line["sha256"] == hashlib.sha256((tmp_path / line["name"]).read_bytes()).hexdigest()
    assert ShardSet(tmp_path).hash == ShardSet(tmp_path).hash
    assert ShardSet(_write(tmp_path / "b", _images(24), shard_rows=10)).hash != ShardSet(tmp_path).hash


def test_long_and_odd_names_fit_and_stay_distinct(tmp_path: Path) -> None:
    names = ["é" * 300, "é" * 299 + "x", b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "a/ü.png"]
    with ShardWriter(tmp_path, size=8) as writer:
        for name, image in zip(names, _images(4), strict=True):
            writer.append(image, Row(0, "s", group=name, origin=name))
    for column in ("origin", "group"):
        stored = ShardSet(tmp_path).columns[column].tolist()
        assert stored[2:] == names[2:] and len(set(stored)) == 4
        assert stored[0].startswith("éééé")


def test_select_meets_every_condition(tmp_path: Path) -> None:
    shards = ShardSet(_write(tmp_path, _images(12)))
    assert shards.select(split="val").tolist() == [0, 3, 6, 9]
    assert shards.select(split="val", label=1).tolist() == [3, 9]
    assert shards.select(split=["val", "train"], generator="gan:1").tolist() == [1, 3, 5, 7, 9, 11]
    assert not len(shards.select(source="other"))


@pytest.mark.parametrize("moment", ["between flushes", "after a shard"])
def test_a_killed_writer_goes_on_with_nothing_lost_or_doubled(moment: str, tmp_path: Path) -> None:
    rows = 100 if moment == "between flushes" else 128
    code = (
        "import os, signal, numpy as np\n"
        "from crossfake.datasets.shards import *\nfrom crossfake.datasets.shard_writer import *\n"
        "images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)\n"
        f"writer = ShardWriter({str(tmp_path)!r}, 8, shard_rows=128)\n"
        f"for n in range({rows}): writer.append(images[n], Row(n % 2, 'mine', group=f'g{{n}}', origin=f'{{n}}.png'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    images = _images(200)
    with ShardWriter(tmp_path, 8, shard_rows=128) as writer:
        assert writer.rows_done == (64 if rows == 100 else 128)  # what was flushed
        assert writer.last_origin == f"{writer.rows_done - 1}.png"
        for number in range(writer.rows_done, 200):
            writer.append(images[number], Row(number % 2, "mine", group=f"g{number}", origin=f"{number}.png"))
    shards = ShardSet(tmp_path)
    assert shards.counts == [128, 72] and np.array_equal(shards.read_many(range(200)), images)
    assert shards.columns["origin"].tolist() == [f"{n}.png" for n in range(200)]


def test_an_exception_keeps_what_was_written(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, 8) as writer:
        writer.extend(_images(10), map(_row, range(10)))
        raise RuntimeError
    assert not read_manifest(tmp_path)
    with ShardWriter(tmp_path, 8) as writer:
        assert writer.rows_done == 10
    assert np.array_equal(ShardSet(tmp_path).read_many(range(10)), _images(10))


def test_damaged_rows_of_a_temporary_file_are_not_rescued(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 8)
    writer.extend(_images(20), map(_row, range(20)))
    writer.__exit__(RuntimeError, RuntimeError(), None)
    (temporary,) = tmp_path.glob("*.tmp")
    raw = bytearray(temporary.read_bytes())
    at = raw.index(_images(20)[12].tobytes())
    raw[at] ^= 1
    temporary.write_bytes(raw)
    with ShardWriter(tmp_path, 8) as again:
        assert again.rows_done == 12


def test_a_finished_shard_that_was_not_listed_is_adopted(tmp_path: Path) -> None:
    _write(tmp_path, _images(20), shard_rows=10)
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text().splitlines()[0] + '\n{"name": "00001.h5", "cou')
    with ShardWriter(tmp_path, 8, shard_rows=10) as writer:
        assert writer.rows_done == 20
    assert ShardSet(tmp_path).counts == [10, 10]


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, _images(5), attributes={"crop": "a"})
    for options in (
        {"size": 16, "attributes": {"crop": "a"}},
        {"size": 8},
        {"size": 8, "codec": "webp", "attributes": {"crop": "a"}},
    ):
        with pytest.raises(UserError, match="other settings"):
            ShardWriter(tmp_path, **options)


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no codec 'jpeg'"):
        ShardWriter(tmp_path / "a", 8, codec="jpeg")
    with ShardWriter(tmp_path / "b", 8) as writer:
        for bad in (np.zeros((9, 8, 3), np.uint8), np.zeros((8, 8, 3), np.float32), b"bytes"):
            with pytest.raises(ValueError, match="expected uint8"):
                writer.append(bad, _row(0))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="name another --out"):
        ShardWriter(tmp_path / "file" / "out", 8)
    with pytest.raises(UserError, match="not a shard folder"):
        ShardSet(tmp_path)


def test_a_missing_or_broken_shard_is_named(tmp_path: Path) -> None:
    _write(tmp_path, _images(20), shard_rows=10)
    raw = bytearray((tmp_path / "00001.h5").read_bytes())
    raw[raw.index(_images(20)[15].tobytes())] ^= 1
    (tmp_path / "00001.h5").write_bytes(raw)
    shards = ShardSet(tmp_path)
    assert np.array_equal(shards.read(14), _images(20)[14])
    with pytest.raises(UserError, match=r"row 5 of shard .*00001\.h5 is damaged"):
        shards.read(15)
    with pytest.raises(IndexError):
        shards.read(20)
    cut = _write(tmp_path / "cut", _images(20), shard_rows=10)
    (cut / "00001.h5").write_bytes(b"short")
    with pytest.raises(UserError, match=r"00001\.h5 cannot be opened"):
        ShardSet(cut).read(15)
    (tmp_path / "00000.h5").unlink()
    with pytest.raises(UserError, match=r"00000\.h5 is missing"):
        ShardSet(tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_with_its_own_handles(method: str, tmp_path: Path) -> None:
    shards = ShardSet(_write(tmp_path, _images(20)))
    shards.read(0)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context) as pool:
        assert np.array_equal(pool.submit(shards.read_many, range(20)).result(60), _images(20))
    assert np.array_equal(shards.read(3), _images(20)[3])


def test_pickling_drops_the_handles(tmp_path: Path) -> None:
    shards = ShardSet(_write(tmp_path, _images(5)))
    shards.read(0)
    copy = pickle.loads(pickle.dumps(shards))
    assert np.array_equal(copy.read_many(range(5)), _images(5)) and copy.hash == shards.hash


def test_two_processes_may_list_their_shards_at_once(tmp_path: Path) -> None:
    for index in (1, 0):
        shard = ShardFile(tmp_path, index, 8, "raw", {})
        for number in range(3):
            shard.append(_images(3)[number], _row(number))
        shard.close()
    assert ShardSet(tmp_path).names == ["00000.h5", "00001.h5"]
    assert os.path.getsize(tmp_path / MANIFEST) > 100


def test_a_shard_is_listed_once_whoever_finds_it(tmp_path: Path) -> None:
    """One process renames its shard, and another finds it before the first has listed it."""
    folder = _write(tmp_path, _images(20), shard_rows=10)
    (folder / MANIFEST).unlink()
    code = (
        "import sys; from pathlib import Path; from crossfake.datasets.shard_writer import adopt_finished\n"
        "print(flush=True); sys.stdin.readline(); adopt_finished(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in processes:
        process.stdout.readline()  # both are ready
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    ShardFile.list_in_manifest(folder / "00001.h5", 10)
    lines = [json.loads(line)["name"] for line in (folder / MANIFEST).read_text().splitlines()]
    assert sorted(lines) == ["00000.h5", "00001.h5"]


def test_a_team_writes_together_and_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfake.datasets.locking._ATTEMPTS", 1)
    one, two = lock_folder(tmp_path, "a"), lock_folder(tmp_path, "a")
    for other in ("b", ""):
        with pytest.raises(UserError, match="another process writes to"):
            lock_folder(tmp_path, other)
    with pytest.raises(UserError, match="another process writes to"):
        ShardWriter(tmp_path, 8)
    leave_folder(tmp_path, one)
    with pytest.raises(UserError, match="another process writes to"):
        lock_folder(tmp_path, "b")
    leave_folder(tmp_path, two)
    assert not list(tmp_path.iterdir())
    with ShardWriter(tmp_path, 8) as writer:
        with pytest.raises(UserError, match="another process writes to"):
            lock_folder(tmp_path, "a")
        writer.append(_images(1)[0], _row(0))
    os.close(lock_folder(tmp_path, "a"))  # killed: its name is left, its lock is not
    leave_folder(tmp_path, lock_folder(tmp_path, "b"))


def test_only_so_many_shards_are_open_at_a_time(tmp_path, monkeypatch):
    from crossfake.datasets import shards as module

    with ShardWriter(tmp_path / "many", size=8, shard_rows=2) as writer:
        for k in range(12):
            writer.append(np.full((8, 8, 3), k, np.uint8), Row(0, "x"))
    monkeypatch.setattr(module, "_OPEN", 2)
    many = ShardSet(tmp_path / "many")
    for _ in range(2):
        assert [int(many.read(row)[0, 0, 0]) for row in range(12)] == list(range(12))
        assert len(many._files) <= 2


@pytest.mark.parametrize("free", [0, (1 << 20) + 100])
def test_a_full_disk_is_found_before_hdf5_does(
    free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 cannot close a file that has no room, and takes the process with it."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(UserError, match="No space left on device"):
        _write(tmp_path, _images(64))
    monkeypatch.undo()
    assert len(ShardSet(_write(tmp_path, _images(64)))) == 64


def _natives(count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (20 + k, 30 - k, 3), dtype=np.uint8) for k in range(count)]


def _write_native(
    folder: Path, images: list[np.ndarray], codec: str = "raw", shard_rows: int = 3
) -> ShardSet:
    with ShardWriter(folder, codec=codec, shard_rows=shard_rows) as writer:
        writer.extend(images, map(_row, range(len(images))))
    return ShardSet(folder)


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_native_rows_keep_their_sizes(codec: str, tmp_path: Path) -> None:
    images = _natives()
    shards = pickle.loads(pickle.dumps(_write_native(tmp_path, images, codec)))
    assert shards.native and shards.size is None and shards.codec == codec
    assert shards.shapes.tolist() == [[*image.shape[:2]] for image in images]
    for ours, theirs in zip(shards.read_each(range(5)), images, strict=True):
        assert np.array_equal(ours, theirs)
    for k, (top, left) in enumerate([(0, 0), (5, 13), (3, 2), (0, 11), (8, 10)]):
        window = shards.window(k, top, left, 16)
        assert np.array_equal(window, images[k][top : top + 16, left : left + 16])
        window[:] = 0  # of its own
    assert np.array_equal(shards.window(2, 0, 0, 22), images[2][:22, :22])
    images_, whole, damaged = shards.read_whole(np.arange(2))
    assert [image.shape for image in images_] == [(20, 30, 3), (21, 29, 3)] and not damaged
    assert whole.tolist() == [0, 1]


def test_what_native_sets_cannot_do_is_one_line(tmp_path: Path) -> None:
    shards = _write_native(tmp_path / "native", _natives())
    with pytest.raises(UserError, match="sizes of their own"):
        shards.read_many([0])
    for top, left, size in ((0, 0, 21), (5, 0, 16), (0, 15, 16), (-1, 0, 16)):
        with pytest.raises(UserError, match=r"row 0 .* is 20×30: no window"):
            shards.window(0, top, left, size)
    with pytest.raises(IndexError):
        shards.window(5, 0, 0, 4)
    with ShardWriter(tmp_path / "new") as writer:
        for wrong in (
            np.zeros((0, 9, 3), np.uint8),
            np.zeros((9, 9), np.uint8),
            np.zeros((9, 9, 3)),
            np.zeros((9, 9, 4), np.uint8),
            b"file",
        ):
            with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
                writer.append(wrong, _row(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="masks need images of one size"):
        ShardWriter(tmp_path / "masks", masks=True)
    with pytest.raises(UserError, match="made with other settings"):
        ShardWriter(tmp_path / "native", size=8)
    aligned = ShardSet(_write(tmp_path / "aligned", _images(3)))
    assert not aligned.native and aligned.shapes.tolist() == [[8, 8]] * 3
    assert np.array_equal(aligned.window(1, 2, 3, 4), _images(3)[1, 2:6, 3:7])
    with ShardWriter(tmp_path / "files", codec="original") as writer:
        writer.append(b"file", _row(0))
    with pytest.raises(UserError, match="whole files of any size"):
        _ = ShardSet(tmp_path / "files").shapes


def test_a_killed_native_writer_goes_on(tmp_path: Path) -> None:
    images = _natives(20) * 4
    file = ShardFile(tmp_path, 0, None, "raw", {})
    for k in range(70):
        file.append(images[k], _row(k))
    file._file.close()  # 64 were flushed
    with ShardWriter(tmp_path) as writer:
        assert writer.rows_done == 64 and writer.last_origin == "63.png"
        writer.extend(images[64:], map(_row, range(64, 80)))
    shards = ShardSet(tmp_path)
    for ours, theirs in zip(shards.read_each(range(80)), images, strict=True):
        assert np.array_equal(ours, theirs)


def test_large_rows_do_not_wait_in_memory(tmp_path: Path) -> None:
    file = ShardFile(tmp_path, 0, None, "raw", {})
    large = np.zeros((3000, 3000, 3), np.uint8)
    for k in range(3):
        file.append(large, _row(k))
    assert not file._pending and len(file._file["end"]) == 3
    file.close()


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_a_damaged_native_row_is_one_line(codec: str, tmp_path: Path) -> None:
    shards = _write_native(tmp_path, _natives(), codec)
    content = bytearray((tmp_path / "00000.h5").read_bytes())
    place = content.find(np.asarray(shards.stored(1)).tobytes() if codec == "raw" else shards.stored(1))
    shards.file(0).close()  # HDF5 has one cache for a file, however often it is open
    assert place > 0
    content[place + 5] ^= 255
    (tmp_path / "00000.h5").write_bytes(content)
    damaged = ShardSet(tmp_path)
    with pytest.raises(UserError, match="row 1 of shard .* is damaged"):
        damaged.read(1)
    with pytest.raises(UserError, match="row 1 of shard .* is damaged"):
        damaged.window(1, 0, 0, 8)


def test_a_fake_names_its_parent_and_older_shards_have_none(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "reals", size=8) as writer:
        writer.append(_images(1)[0], Row(0, "mine", origin="a.png"))
        writer.append(_images(1)[0], Row(0, "m" * 64, origin="o" * 300))
    ids = ShardSet(tmp_path / "reals").ids().tolist()
    assert ids[0] == "mine/a.png" and len(ids[1]) <= 320
    with ShardWriter(tmp_path / "fakes", size=8) as writer:
        writer.extend(_images(2), [Row(1, "synth", parent=each) for each in ids])
    fakes = ShardSet(tmp_path / "fakes")
    assert fakes.columns["parent"].tolist() == ids
    fakes.file(0).close()
    with h5py.File(tmp_path / "fakes" / "00000.h5", "r+") as file:
        del file["parent"]
    fakes = ShardSet(tmp_path / "fakes")
    assert fakes.columns["parent"].tolist() == ["", ""]
    fakes.file(0).close()
    (tmp_path / "old").mkdir()  # a writer of before there was the column was killed
    (tmp_path / "fakes" / "00000.h5").rename(tmp_path / "old" / "00000.h5.tmp")
    with ShardWriter(tmp_path / "old", size=8) as writer:
        assert writer.rows_done == 2
    assert ShardSet(tmp_path / "old").columns["parent"].tolist() == ["", ""]
