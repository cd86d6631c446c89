"""A Ray cluster of two machines for all tests of this folder, and a server that speaks S3."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import crossfake.datasets.prepare as preparing
import crossfake.synth.sampling.generation as generation
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.executor import ExecutorSettings
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.sampling.models import save_model

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]
S3 = all(map(importlib.util.find_spec, ("moto", "s3fs")))


@pytest.fixture(scope="package")
def server() -> Iterator[None]:
    """A server on this machine that speaks S3, known to all processes that are started from here on."""
    if not S3:
        yield
        return
    import s3fs
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    own = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{moto.get_host_and_port()[1]}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem().mkdir("faces")
        yield
    moto.stop()


@pytest.fixture(scope="package")
def nodes(server: None) -> Iterator[Any]:
    """Two machines of one core each."""
    from ray.cluster_utils import Cluster

    short = tempfile.mkdtemp(prefix="r", dir="/tmp")  # Ray's sockets need a short path
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("TMPDIR", short)  # Ray notes its address there
        nodes = Cluster(initialize_head=True, head_node_args={**node, "temp_dir": f"{short}/ray"})
        nodes.add_node(**node)
        try:
            yield nodes
        finally:
            nodes.shutdown()
            shutil.rmtree(short, ignore_errors=True)


@pytest.fixture(scope="package")
def ray(nodes: Any) -> Iterator[ExecutorSettings]:
    """The cluster, connected."""
    where = ExecutorSettings("ray", nodes.address)
    with where.connected():
        yield where


@pytest.fixture(scope="package")
def stored(ray: ExecutorSettings) -> ExecutorSettings:
    """The cluster, and a bucket that its machines share."""
    if not S3:
        pytest.skip("needs moto and s3fs")
    return ExecutorSettings("ray", ray.address, "s3://faces/shards")


def settings(out: Path, **more: Any) -> PrepareSettings:
    return PrepareSettings(
        **{"source": "toyfaces", "out": out, "size": 16, "crop": "none", "limit": 70, **more}
    )


def same(one: Path, other: Path) -> bool:
    """The same files to the bit, and nothing beside them."""
    names = [sorted(file.name for file in folder.iterdir() if file.name[0] != ".") for folder in (one, other)]
    return names[0] == names[1] and ShardSet(one).hash == ShardSet(other).hash


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_SHARD_ROWS", 25)
    monkeypatch.setattr(generation, "SHARD_ROWS", 25)


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    network = FAMILIES.get("dcgan").generator(size=16, channels=8)
    card = {"size": 16, "network": {"size": 16, "channels": 8}, "crop": None}
    save_model(folder, "dcgan", network, card)
    return folder


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """120 reals and 90 other faces that are called fakes."""
    folder = tmp_path_factory.mktemp("data")
    shares = {"split": "0.5/0.2/0.3", "workers": 1}
    prepare(settings(folder / "real", limit=120, **shares))
    prepare(settings(folder / "fake", limit=90, seed=1, label="fake", generator="x", name="x", **shares))
    return folder / "real", folder / "fake"


@pytest.fixture(scope="package")
def detector(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cnn"
    return train(TrainSettings((data[0],), out, (data[1],), steps=4, batch=16, eval_every=2, device="cpu"))
