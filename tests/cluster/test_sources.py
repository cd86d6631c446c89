"""What Ray's machines read from a store is what is read on a disk."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import SOURCES
from crossfake.datasets.sources.fixtures import write_face
from crossfake.executor import ExecutorSettings


def _folder(out: Path) -> Path:
    for number in range(40):
        write_face(out / ("real", "fake")[number % 2] / f"{number:02d}.png", number)
    return out


def _list(out: Path) -> Path:
    _folder(out)
    files = sorted(file.relative_to(out).as_posix() for file in out.rglob("*.png"))
    (out / "list.csv").write_text("\n".join(["file,label", *(f"{f},{f.split('/')[0]}" for f in files)]))
    return out / "list.csv"


def _tar(out: Path) -> Path:
    return SOURCES.get("webdataset")().fixture(out)


def _parquet(out: Path) -> Path:
    pytest.importorskip("pyarrow")
    return SOURCES.get("huggingface")().fixture(out / "made").parent / "parquet"


@pytest.mark.parametrize("make", [_folder, _list, _tar, _parquet])
@pytest.mark.usefixtures("small_shards")
def test_sources_in_a_store(make: Any, stored: ExecutorSettings, tmp_path: Path) -> None:
    import s3fs

    made = make(tmp_path / "set")
    there = f"faces/{make.__name__}"
    s3fs.S3FileSystem().put(str(made if made.is_dir() else made.parent), there, recursive=True)
    asked: dict[str, Any] = {"crop": "none", "size": 16, "workers": 1, "name": "set"}
    prepare(PrepareSettings(str(made), tmp_path / "here", **asked))
    url = f"s3://{there}" if made.is_dir() else f"s3://{there}/{made.name}"
    prepare(PrepareSettings(url, tmp_path / "ray", **asked), stored)
    one, other = ShardSet(tmp_path / "here"), ShardSet(tmp_path / "ray")
    for column in ("crc32", "label", "split", "group", "origin", "generator"):
        assert one.columns[column].tolist() == other.columns[column].tolist(), column
    assert len(one) == len(other) > 3


def test_the_command_reads_from_a_store(server: None, tmp_path: Path, stored: ExecutorSettings) -> None:
    import s3fs

    s3fs.S3FileSystem().put(str(_folder(tmp_path / "set")), "faces/typed", recursive=True)
    words = f"data prepare s3://faces/typed --crop none --size 16 --out {tmp_path / 'out'} --executor ray"
    words += f" --address {stored.address} --store {stored.store}"
    command = [str(Path(sys.executable).parent / "crossfake"), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "20 real, 20 fake" in done.stdout, done.stderr
