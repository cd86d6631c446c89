import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.datasets.sources import folder
from crossfake.datasets.sources.base import SOURCES, Rejected, SourceSpec, open_source
from crossfake.errors import UserError


def _png(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "PNG")


def test_a_folder_yields_nested_images_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a.png", "b/1.webp", "c/d/e.gif"):
        _png(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    records = list(open_source(SourceSpec(str(tmp_path))))
    assert [record.origin for record in records] == ["a.png", "b/1.webp", "b/2.JPG", "c/d/e.gif"]
    assert {record.source for record in records} == {tmp_path.name} and records[0].label is None


def test_a_shard_folder_keeps_what_it_knows(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 8) as writer:
        for number in range(3):
            writer.append(
                np.full((8, 8, 3), number, np.uint8), Row(number % 2, "s", "g", "val", f"p{number}")
            )
    records = list(open_source(SourceSpec(str(tmp_path))))
    assert [r.label for r in records] == [0, 1, 0] and [r.group for r in records] == ["p0", "p1", "p2"]
    assert (
        records[2].image[0, 0, 0] == 2 and records[2].split == "val" and len({r.origin for r in records}) == 3
    )


def test_toyfaces_depend_on_seed_and_number_only() -> None:
    def take(seed: int, count: int) -> list[np.ndarray]:
        return [r.image for r in itertools.islice(open_source(SourceSpec("toyfaces", seed, 16)), count)]

    assert np.array_equal(take(1, 5)[:3], take(1, 3)) and not np.array_equal(take(1, 3), take(2, 3))
    assert take(0, 1)[0].shape == (16, 16, 3)


def test_unknown_words_and_empty_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'toyfaces'"):
        open_source(SourceSpec("toyface"))
    with pytest.raises(UserError, match="holds no images"):
        open_source(SourceSpec(str(tmp_path)))
    _png(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="file of another kind"):
        open_source(SourceSpec(str(tmp_path / "notes.txt")))
    assert [r.origin for r in open_source(SourceSpec(str(tmp_path / "a.png")))] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "fetcher"), [("lfw", "fetch_lfw_people"), ("olivetti", "fetch_olivetti_faces")]
)
def test_a_fetch_that_fails_is_one_line(name: str, fetcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(f"sklearn.datasets.{fetcher}", offline)
    with pytest.raises(UserError, match=r"could not be fetched .*no network"):
        list(open_source(SourceSpec(name)))


def test_olivetti_rows_are_grouped_by_person(monkeypatch: pytest.MonkeyPatch) -> None:
    bunch = SimpleNamespace(
        images=np.linspace(0, 1, 3 * 16).reshape(3, 4, 4).astype(np.float32), target=[0, 0, 1]
    )
    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", lambda: bunch)
    records = list(open_source(SourceSpec("olivetti")))
    assert [r.group for r in records] == ["olivetti:0", "olivetti:0", "olivetti:1"]
    assert records[2].image.shape == (4, 4, 3) and records[2].image.max() == 255


def test_lfw_groups_by_the_folder_of_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Ann_A/Ann_A_0001.jpg", "Ann_A/Ann_A_0002.jpg", "Bob_B/Bob_B_0001.jpg"):
        _png(tmp_path / "lfw_home" / "lfw_funneled" / name)
    monkeypatch.setattr("sklearn.datasets.fetch_lfw_people", lambda **_: None)
    monkeypatch.setattr("sklearn.datasets.get_data_home", lambda: str(tmp_path))
    assert [r.group for r in open_source(SourceSpec("lfw"))] == ["lfw:Ann_A", "lfw:Ann_A", "lfw:Bob_B"]


def test_files_are_listed_in_flat_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing made up on the fly: 100 folders of 1,000 files."""
    import contextlib
    import tracemalloc

    class Entry:
        def __init__(self, name: str, folder: bool) -> None:
            self.name, self._folder = name, folder

        def is_dir(self, follow_symlinks: bool = True) -> bool:
            return self._folder

    @contextlib.contextmanager
    def listing(path: Path) -> Iterator[Iterator[Entry]]:
        top = Path(path).name == "top"
        yield (Entry(f"{k:04d}" if top else f"{k:06d}.jpg", top) for k in range(100 if top else 1000))

    monkeypatch.setattr(os, "scandir", listing)
    monkeypatch.setattr(Path, "stat", lambda self, **_: os.stat_result((0o40755, hash(self.name), *[0] * 8)))
    monkeypatch.setattr(folder, "is_shards", lambda path: False)
    paths = folder.walk(Path("/top"))
    seen = sum(1 for _ in itertools.islice(paths, 70_500))
    tracemalloc.start(8)  # frames deep: what pathlib keeps for the walk counts, other threads do not
    try:
        seen += sum(1 for _ in itertools.islice(paths, 20_000))
        walk = tracemalloc.Filter(True, folder.__file__, all_frames=True)
        left = tracemalloc.take_snapshot().filter_traces([walk])  # before the end, which frees all
    finally:
        tracemalloc.stop()
    assert len(left.traces) < 10_000  # no object for every file; one folder's names may be there
    assert seen + sum(1 for _ in paths) == 100_000


def test_links_in_circles_and_to_nowhere_are_skipped_with_a_reason(tmp_path: Path) -> None:
    _png(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "b.png").symlink_to("c.png")
    (tmp_path / "set" / "c.png").symlink_to("b.png")
    (tmp_path / "set" / "d.png").symlink_to("nowhere.png")
    (tmp_path / "set" / "e.png").symlink_to(tmp_path / "set", target_is_directory=True)
    done = prepare(PrepareSettings(str(tmp_path / "set"), tmp_path / "out", 8, "none", workers=1))
    assert done.images == 1 and done.skipped == {"unreadable": 3}


def test_hostile_files_are_skipped_with_a_reason(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    place = tmp_path / "set"
    _png(place / "good.png")
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )
    (place / "bomb.png").write_bytes(bomb)
    (place / "empty.jpg").write_bytes(b"")
    (place / "cut.png").write_bytes((place / "good.png").read_bytes()[:40])
    (place / "page.jpg").write_text("<html>not found</html>")
    (place / "png in jpeg's clothes.jpg").write_bytes((place / "good.png").read_bytes())
    (place / "unreadable.png").mkdir()
    os.mkfifo(place / "pipe.png")  # reading it would wait for ever
    os.mkfifo(place / "pipe.mp4")
    done = prepare(PrepareSettings(str(place), tmp_path / "out", 8, "none", workers=1))
    assert done.images == 2 and done.skipped == {"unreadable": 6}
    listed = (tmp_path / "out" / "skipped.csv").read_text()
    assert (
        "bomb.png,unreadable," in listed
        and "2500000000 pixels" in listed
        and "no known image format" in listed
    )


def test_folders_called_real_and_fake_label_what_is_in_them(tmp_path: Path) -> None:
    for name in ("Real/a.png", "Real/deeper/b.png", "FAKE/c.png", "loose.png"):
        _png(tmp_path / name)
    spec = SourceSpec(str(tmp_path))
    assert spec.layout == "folder"  # of whoever's making: no claim that it is a published set
    records = {record.origin: record for record in open_source(spec)}
    labels = {origin: record.label for origin, record in records.items()}
    assert labels == {"Real/a.png": 0, "Real/deeper/b.png": 0, "FAKE/c.png": 1, "loose.png": None}
    assert isinstance(records["loose.png"].image, Rejected)
    done = prepare(PrepareSettings(str(tmp_path), tmp_path / "out", 8, "none", workers=1))
    assert (done.real, done.fake, done.skipped) == (2, 1, {"not labelled": 1})
    assert "2 real, 1 fake" in done.table()


def test_folders_that_name_splits_and_generators_are_taken_at_their_word(tmp_path: Path) -> None:
    for name in (
        "data/Train/real/1.png",
        "data/Train/fake/sd/2.png",
        "data/valid/training_real/3.png",
        "data/test/fake/real_esrgan/images/4.png",
        "__MACOSX/Train/fake/5.png",
        ".cache/6.png",
    ):
        _png(tmp_path / name)
    facts = [(r.origin[-5], r.label, r.split, r.generator) for r in open_source(SourceSpec(str(tmp_path)))]
    assert sorted(facts) == [
        ("1", 0, "train", ""),
        ("2", 1, "train", "sd"),
        ("3", 0, "val", ""),
        ("4", 1, "test", "real_esrgan"),
    ]


def test_a_lone_word_decides_nothing(tmp_path: Path) -> None:
    for name in ("test/a.png", "cats/b.png"):
        _png(tmp_path / "plain" / name)
    assert {(r.label, r.split) for r in open_source(SourceSpec(str(tmp_path / "plain")))} == {(None, "")}
    _png(tmp_path / "more" / "fake_sd" / "a.png")
    settings = {"size": 8, "crop": "none", "workers": 1}
    with pytest.raises(UserError, match="fake_sd/a.png of more would be called real"):
        prepare(PrepareSettings(str(tmp_path / "more"), tmp_path / "o", **settings))  # type: ignore[arg-type]
    done = prepare(PrepareSettings(str(tmp_path / "more"), tmp_path / "o", label="fake", **settings))  # type: ignore[arg-type]
    assert done.fake == 1


def test_one_folder_too_high_names_the_right_one(tmp_path: Path) -> None:
    SOURCES.get("kaggle-deepfake-real")().fixture(tmp_path / "downloads" / "archive")
    with pytest.raises(UserError, match="archive looks like kaggle-deepfake-real"):
        open_source(SourceSpec(str(tmp_path / "downloads")))
    assert len(list(open_source(SourceSpec(f"folder:{tmp_path / 'downloads'}")))) == 18


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    _png(tmp_path / "elsewhere" / "a.png")
    place = tmp_path / "place"
    _png(place / "fake" / "b.png")
    (place / "real").symlink_to(tmp_path / "elsewhere")
    (place / "fake" / "round").symlink_to(place)
    facts = [(r.origin, r.label) for r in open_source(SourceSpec(str(place)))]
    assert facts == [("fake/b.png", 1), ("real/a.png", 0)]


@pytest.mark.parametrize("word", ["", " ", "x" * 300, "folder:" + "y" * 300])
def test_words_that_are_no_source_are_one_line(word: str) -> None:
    with pytest.raises(UserError):
        open_source(SourceSpec(word))


def test_shards_are_no_pictures_and_a_users_manifest_no_shards(tmp_path: Path) -> None:
    _png(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "manifest.jsonl").write_text('{"file": "a.png", "label": "real"}\n')
    assert SourceSpec(str(tmp_path / "photos")).layout == "folder"
    shards = tmp_path / "photos" / "shards"
    settings = PrepareSettings(str(tmp_path / "photos"), shards, 8, "none", workers=1)
    with pytest.raises(UserError, match="manifest.jsonl lies beside the pictures"):
        prepare(settings)
    prepare(dataclasses.replace(settings, label="real"))
    _png(shards / "rejects.png")
    assert [r.origin for r in open_source(SourceSpec(str(tmp_path / "photos")))] == ["a.png"]
    assert SourceSpec(str(shards)).layout == "shards"
    with pytest.raises(UserError, match="is a shard folder"):
        open_source(SourceSpec(f"folder:{shards}"))


def test_versions_and_filters_that_do_nothing_are_refused(tmp_path: Path) -> None:
    _png(tmp_path / "a.png")
    with pytest.raises(UserError, match="one version only"):
        open_source(SourceSpec(str(tmp_path), variant="c23"))
    with pytest.raises(UserError, match="leave --min-face out"):
        PrepareSettings(str(tmp_path), tmp_path / "o", crop="none", min_face=20)


def test_an_ordinary_folder_is_no_published_set(tmp_path: Path) -> None:
    for name in (
        "Train/Real/a.png",
        "Train/Fake/b.png",
        "Test/Real/c.png",
        "Test/Fake/d.png",
        "images/e.png",
    ):
        _png(tmp_path / name)
    (tmp_path / "data.csv").write_text("a,b\n")
    assert SourceSpec(str(tmp_path)).layout == "folder"
