"""Shard folders through stores: once, whole, checked, and with errors of one line."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from crossfake.datasets import remote
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import MANIFEST, SPLITS, Row, ShardSet
from crossfake.errors import UserError


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardSet:
    """Two shards of six pictures, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    with ShardWriter(tmp_path / "faces", size=8, shard_rows=4) as writer:
        for number, image in enumerate(images):
            writer.append(image, Row(0, "toy", split="train", group=str(number), origin=f"{number}.png"))
    return ShardSet(tmp_path / "faces")


def test_what_is_pulled_is_what_was_pushed(shards: ShardSet, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    remote.push(shards.path, url)
    shutil.move(shards.path, tmp_path / "elsewhere")
    folder = remote.pull(shards.hash, url)
    assert folder == tmp_path / "cache" / "crossfake" / "shards" / shards.hash
    pulled, original = ShardSet(folder), ShardSet(tmp_path / "elsewhere")
    assert pulled.names == ["00000.h5", "00001.h5"] and pulled.hash == original.hash
    assert np.array_equal(pulled.read_many(range(6)), original.read_many(range(6)))
    shutil.rmtree(tmp_path / "store")
    assert remote.pull(shards.hash, url) == folder, "what was fetched is not fetched again"


def test_splits_decided_later_travel_too(shards: ShardSet, tmp_path: Path) -> None:
    rows = "\n".join(f"{number}.png,{number},test" for number in range(6))
    (shards.path / SPLITS).write_text(f"origin,group,split\n{rows}\n")
    decided = ShardSet(shards.path)
    remote.push(shards.path, str(tmp_path / "store"))
    folder = remote.pull(decided.hash, str(tmp_path / "store"))
    assert decided.hash != shards.hash and ShardSet(folder).columns["split"].tolist() == ["test"] * 6


def test_a_folder_is_uploaded_once_and_an_unfinished_upload_again(shards: ShardSet, tmp_path: Path) -> None:
    url, there = f"file://{tmp_path}/store", tmp_path / "store" / shards.hash
    remote.push(shards.path, url)
    before = (there / "00000.h5").stat().st_mtime_ns
    remote.push(shards.path, url)
    assert (there / "00000.h5").stat().st_mtime_ns == before
    (there / MANIFEST).write_text((there / MANIFEST).read_text()[:40])  # a kill leaves this
    remote.push(shards.path, url)
    assert remote.hash_of(there) == shards.hash


def test_any_store_of_fsspec_will_do(shards: ShardSet) -> None:
    remote.push(shards.path, "memory://bucket/shards")
    assert fsspec.filesystem("memory").exists(f"/bucket/shards/{shards.hash}/{MANIFEST}")
    assert remote.hash_of(remote.pull(shards.hash, "memory://bucket/shards")) == shards.hash


def test_a_folder_that_is_there_is_used_and_another_under_its_name_is_not(
    shards: ShardSet, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/store"
    remote.push(shards.path, url)
    assert remote.find(shards.path, shards.hash, None) == shards.path
    with ShardWriter(tmp_path / "other", size=8) as writer:
        writer.append(np.zeros((8, 8, 3), np.uint8), Row(0, "toy"))
    assert remote.find(tmp_path / "other", shards.hash, url) == remote.cache() / shards.hash
    with pytest.raises(UserError, match="does not have the shards .*other, or has others there: .*--store"):
        remote.find(tmp_path / "other", shards.hash, None)


def test_many_at_once_fetch_once(shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"file://{tmp_path}/store"
    remote.push(shards.path, url)
    fetched, fetch = [], remote._fetch
    monkeypatch.setattr(remote, "_fetch", lambda *arguments: (fetched.append(1), fetch(*arguments)))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(remote.pull, [shards.hash] * 4, [url] * 4))) == 1
    assert len(fetched) == 1
    assert {path.name for path in remote.cache().iterdir()} == {shards.hash, f"{shards.hash}.lock"}


@pytest.mark.parametrize("part", ["00001.h5", MANIFEST])
def test_what_is_damaged_is_not_kept(shards: ShardSet, tmp_path: Path, part: str) -> None:
    url = f"file://{tmp_path}/store"
    remote.push(shards.path, url)
    file = tmp_path / "store" / shards.hash / part
    raw = bytearray(file.read_bytes())
    raw[len(raw) - 12] ^= 1
    file.write_bytes(raw)
    with pytest.raises(UserError, match=f"store/{shards.hash} is damaged: delete it"):
        remote.pull(shards.hash, url)
    assert not (remote.cache() / shards.hash).exists()


def test_a_manifest_cannot_name_files_elsewhere(shards: ShardSet, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    remote.push(shards.path, url)
    manifest = tmp_path / "store" / shards.hash / MANIFEST
    manifest.write_text(manifest.read_text().replace("00001.h5", "../../outside.h5"))
    with pytest.raises(UserError, match="names a file outside its folder"):
        remote.pull(shards.hash, url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/shards", "s3://bucket/shards needs a package that is not installed: pip install s3fs$"),
        ("gs://bucket/shards", "pip install gcsfs$"),
        ("nowhere://bucket", "the store nowhere://bucket does not work .*not known: nowhere.*: check its"),
        ("file:///proc/shards", "the store file:///proc/shards does not work"),
    ],
)
def test_a_store_that_does_not_work_is_one_line(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=expected) as found:
        remote.push(shards.path, url)
    assert "\n" not in str(found.value)


def test_shards_that_nobody_uploaded(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no shards file://.*store/" + shards.hash):
        remote.pull(shards.hash, f"file://{tmp_path}/store")
