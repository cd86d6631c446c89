"""What is read from a store; memory:// stands for one. Tests of the cluster read from a server that speaks S3."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossfake.datasets.names import Names
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import objects
from crossfake.datasets.sources.base import SOURCES, Record, SourceSpec, Stored, open_source
from crossfake.datasets.sources.fixtures import face_bytes
from crossfake.datasets.sources.objects import listing
from crossfake.errors import UserError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    objects._folders.cache_clear()


def put(store: Any, *names: str) -> None:
    for number, name in enumerate(names):
        store.pipe_file(name, face_bytes(number, "PNG"))


def rows(records: Iterator[Record]) -> list[tuple[Any, ...]]:
    return [(r.origin, r.label, r.generator, r.split, r.source) for r in records]


def test_folders_in_a_store_are_read_as_on_a_disk(store: Any, tmp_path: Path) -> None:
    put(store, "faces/real/1.png", "faces/fake/mygan/2.png", "faces/fake/.hidden/3.png")
    store.pipe_file("faces/fake/notes.txt", b"none")
    store.pipe_file("faces/real/clip.mp4", b"video")
    spec = SourceSpec("memory://faces")
    records = list(open_source(spec))
    assert [(r.origin, r.label, r.generator) for r in records] == [
        ("fake/mygan/2.png", 1, "mygan"),
        ("real/1.png", 0, ""),
        ("real/clip.mp4", 0, ""),
    ]
    assert spec.left_out.counts.total() == 1 and {r.source for r in records} == {"faces"}
    done = prepare(PrepareSettings("memory://faces/", tmp_path / "out", crop="none", size=16, workers=1))
    assert (done.real, done.fake) == (1, 1)
    assert done.skipped == {"video in an object store": 1}


def test_a_store_without_labels_asks(store: Any, tmp_path: Path) -> None:
    put(store, "faces/a/1.png", "faces/b/2.png")
    with pytest.raises(UserError, match="does not say what all of its files are"):
        prepare(PrepareSettings("memory://faces", tmp_path / "out", crop="none", labels="real=a", workers=1))


def test_a_list_in_a_store(store: Any, tmp_path: Path) -> None:
    put(store, "set/pictures/0.png", "set/pictures/1.png")
    lines = ["file,label", "pictures/0.png,real", "memory://set/pictures/1.png,fake", "pictures/2.png,real"]
    store.pipe_file("set/list.csv", "\n".join([*lines, "pictures/0.png,real"]).encode())
    spec = SourceSpec("memory://set/list.csv")
    assert [r.origin for r in open_source(spec)][-1] == "pictures/0.png:5", "named twice"
    done = prepare(PrepareSettings(spec.word, tmp_path / "out", crop="none", size=16, workers=1))
    assert (done.real, done.fake, done.skipped) == (2, 1, {"unreadable": 1})
    (tmp_path / "here.csv").write_text("file,label\nmemory://set/pictures/0.png,real\n")
    assert prepare(PrepareSettings("here.csv", tmp_path / "more", crop="none", workers=1)).real == 1


def test_parquet_in_a_store(store: Any, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    SOURCES.get("huggingface")().fixture(tmp_path / "hub")
    store.put(str(tmp_path / "hub" / "parquet"), "hub", recursive=True)
    store.pipe_file("hub/README.md", b"#")
    here = rows(open_source(SourceSpec(str(tmp_path / "hub" / "parquet"))))
    there = rows(open_source(SourceSpec("memory://hub")))
    assert [row[:4] for row in here] == [row[:4] for row in there] and len(here) == 4
    one = SourceSpec("memory://hub/data/train-00000-of-00001.parquet")
    assert [r.label for r in open_source(one)] == [0, 1, 0, 1]
    assert SOURCES.get("huggingface")().count(one) == 4
    with pytest.raises(UserError, match="holds no parquet files"):
        open_source(SourceSpec("huggingface:memory://none"))


def test_what_is_not_read_from_a_store(store: Any) -> None:
    put(store, "faces/1.png")
    for word in ("memory://faces/a.zip", "ffhq:memory://faces"):
        with pytest.raises(UserError, match="is not read from a URL"):
            open_source(SourceSpec(word))
    with pytest.raises(UserError, match="the store nothing://x does not work"):
        open_source(SourceSpec("nothing://x"))
    with pytest.raises(UserError, match="is no URL"):
        open_source(SourceSpec("objects:."))
    with pytest.raises(OSError, match="not in the store"):
        Stored("memory://faces/2.png").read_bytes()
    assert Stored("memory://faces/1.png", 1, 3).read_bytes() == b"PNG"


def test_s3_is_listed_by_pages() -> None:
    class Files:
        """A million names that nobody holds."""

        asked = 0

        def call_s3(self, method: str, Prefix: str, ContinuationToken: int = 0, **_: Any) -> Any:
            self.asked += 1
            more = ContinuationToken + 1000
            keys = [{"Key": f"{Prefix}{number:07d}.jpg"} for number in range(ContinuationToken, more)]
            return {"Contents": keys, "IsTruncated": more < 10**6, "NextContinuationToken": more}

    files = Files()
    names = objects._pages(files, "bucket/faces")
    assert next(names) == "0000000.jpg" and files.asked == 1
    assert sum(1 for _ in names) == 10**6 - 1 and files.asked == 1000


# ---------------------------------------------------------------- tar shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return SOURCES.get("webdataset")().fixture(tmp_path / "wds")


def tar(path: Path, **files: bytes) -> Path:
    import io

    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return path


def test_samples_of_a_shard(shards: Path, store: Any) -> None:
    here = list(open_source(SourceSpec(str(shards))))
    assert rows(iter(here))[:2] == [
        ("train-000000.tar/000000.png", 0, "", "train", "wds"),
        ("train-000000.tar/000001.png", 1, "mygan", "train", "wds"),
    ]
    assert [r.image.read_bytes() for r in here] == [face_bytes(number, "PNG") for number in range(6)]  # type: ignore[union-attr]
    store.put(str(shards), "wds", recursive=True)
    there = list(open_source(SourceSpec("memory://wds")))
    assert rows(iter(here)) == rows(iter(there))
    assert [r.image.read_bytes() for r in there] == [r.image.read_bytes() for r in here]  # type: ignore[union-attr]
    assert len(list(open_source(SourceSpec("memory://wds/train-000001.tar")))) == 3


def test_classes_words_folders_and_what_is_not_read(tmp_path: Path) -> None:
    face = face_bytes(0, "PNG")
    one = tar(
        tmp_path / "x-0.tar",
        **{
            "a.cls": b"1",
            "a.png": face,
            "real/b.png": face,
            "c.json": b'{"label": "odd"}',
            "c.png": face,
            "d.mp4": b"v",
            "d.cls": b"0",
            "e.txt": b"words only",
            "f.png": face,
            "__MACOSX/._f.png": b"",
        },
    )
    spec = SourceSpec(str(one), labels={"odd": 1})
    found = [(r.origin.partition("/")[2], r.label, type(r.image).__name__) for r in open_source(spec)]
    assert found == [
        ("a.png", 1, "Stored"),
        ("real/b.png", 0, "Stored"),
        ("c.png", 1, "Stored"),
        ("d.mp4", 0, "Rejected"),
        ("f.png", None, "Stored"),
    ]
    with pytest.raises(UserError, match="'odd' says neither real nor fake"):
        list(open_source(SourceSpec(str(one))))
    asked: dict[str, Any] = {"crop": "none", "workers": 1, "size": 16, "labels": "fake=odd"}
    with pytest.raises(UserError, match=r"nothing says whether x-0.tar/f.png is real or fake.*give --label"):
        prepare(PrepareSettings(str(one), tmp_path / "out", **asked))
    done = prepare(PrepareSettings(str(one), tmp_path / "out", label="real", **asked))
    assert (done.real, done.fake) == (2, 2)


@pytest.mark.parametrize("content", [b"no tar", b"\x1f\x8b\x08compressed"])
def test_a_damaged_shard_is_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(UserError, match="not a whole tar archive without compression"):
        list(open_source(SourceSpec(str(tmp_path / "x.tar"))))


def test_a_stopped_preparation_of_shards_goes_on(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import crossfake.datasets.prepare as preparing

    asked = {"crop": "none", "workers": 1, "size": 16}
    prepare(PrepareSettings(str(shards), tmp_path / "whole", **asked))  # type: ignore[arg-type]
    row_of, left = preparing._row, iter(range(4))

    def stopped(*facts: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return row_of(*facts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparing, "_row", stopped)
        prepare(PrepareSettings(str(shards), tmp_path / "parts", **asked))  # type: ignore[arg-type]
    prepare(PrepareSettings(str(shards), tmp_path / "parts", **asked))  # type: ignore[arg-type]
    found = [ShardSet(tmp_path / name) for name in ("whole", "parts")]
    assert found[0].columns["crc32"].tolist() == found[1].columns["crc32"].tolist()
    assert json.dumps(found[0].attributes) == json.dumps(found[1].attributes)


def test_names_are_kept_apart() -> None:
    names = Names(f"{number}.png" for number in range(1000))
    assert "7.png" in names and "1000.png" not in names
    assert not names.add("7.png") and names.add("ü\udcff.png") and "ü\udcff.png" in names


def test_names_below_a_store_of_one_folder_at_a_time(store: Any) -> None:
    put(store, "faces/b/2.png", "faces/b/1.png", "faces/a.png")
    assert list(listing("memory://faces")) == ["a.png", "b/1.png", "b/2.png"]
