"""Long stages on a Ray cluster give what they give here: two machines for all tests, and a server that speaks S3."""

import importlib.util
import json
import operator
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import crossfake.datasets.prepare as preparing
import crossfake.synth.sampling.generation as generation
from crossfake import cluster
from crossfake.datasets import fingerprints, leaks
from crossfake.datasets.audit.audit import audit
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings, SplitSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.fixtures import write_face
from crossfake.detect.bundle import bundle
from crossfake.detect.evaluation.evaluate import evaluate as detect_evaluate
from crossfake.detect.prediction.predict import predict
from crossfake.detect.settings import EvaluateSettings, PredictSettings
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.errors import UserError
from crossfake.executor import Demand, ExecutorSettings, map_in_order
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.families.reconstruct import Taesd
from crossfake.synth.quality.evaluate import evaluate as synth_evaluate
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import save_model
from crossfake.synth.settings import EvaluateSettings as QualitySettings
from crossfake.synth.settings import GenerateSettings

pytest.importorskip("ray")
_S3 = all(map(importlib.util.find_spec, ("moto", "s3fs")))


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A server on this machine that speaks S3, known to all processes that are started from here on."""
    if not _S3:
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


@pytest.fixture(scope="module")
def ray(server: None) -> Iterator[ExecutorSettings]:
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
        where = ExecutorSettings("ray", nodes.address)
        try:
            with where.connected():
                yield where
        finally:
            nodes.shutdown()
            shutil.rmtree(short, ignore_errors=True)


@pytest.fixture(scope="module")
def stored(ray: ExecutorSettings) -> ExecutorSettings:
    """The cluster, and a bucket that its machines share."""
    if not _S3:
        pytest.skip("needs moto and s3fs")
    return ExecutorSettings("ray", ray.address, "s3://faces/shards")


# ---------------------------------------------------------------- the map


def test_results_come_in_order_and_tasks_are_read_a_little_ahead(ray: ExecutorSettings) -> None:
    read = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    results = map_in_order(operator.neg, tasks(), where=ray)
    assert next(results) == (0, 0) and len(read) < 20
    assert list(results) == [(k, -k) for k in range(1, 100)]


def test_a_worker_that_dies_is_replaced(ray: ExecutorSettings, tmp_path: Path) -> None:
    """The first try kills its process, the second one answers."""
    once = "7 if os.path.exists(p) else (os.mkdir(p), os._exit(1))"
    tasks: list[Callable[[], Any]] = [os.getpid, partial(eval, once, {"os": os, "p": str(tmp_path / "x")})]
    assert [found for _, found in map_in_order(operator.call, tasks, where=ray)][1] == 7


@pytest.mark.slow
def test_a_task_that_kills_its_worker_each_time_is_a_line(ray: ExecutorSettings) -> None:
    with pytest.raises(UserError, match=r"died 4 times .*: perhaps memory is short there"):
        list(map_in_order(operator.call, [partial(os._exit, 1)], where=ray))


def test_a_users_error_crosses_as_it_is(ray: ExecutorSettings) -> None:
    wrong = partial(PrepareSettings, "toyfaces", Path("x"))
    with pytest.raises(UserError, match="toyfaces never ends: say how many"):
        list(map_in_order(operator.call, [wrong], where=ray))


def test_what_no_machine_can_hold(ray: ExecutorSettings) -> None:
    with pytest.raises(UserError, match="no machine of the Ray cluster can hold neg: 64 cores"):
        list(map_in_order(operator.neg, [1], where=ray, demand=Demand(cpus=64)))
    cluster.Tasks(operator.neg, Demand(gpus=1))  # one without GPUs does without
    with pytest.raises(UserError, match="1 GPUs"):
        cluster.Tasks(operator.neg, Demand(gpus=1), insists=True)


def test_a_folder_travels_without_its_checkpoints(ray: ExecutorSettings, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.pt").write_bytes(b"much")
    (tmp_path / "run" / "card.json").write_text("{}")
    sent = cluster.Sent(tmp_path / "run")
    [(_, place)] = map_in_order(operator.call, [sent.there], where=ray)
    assert [file.name for file in place.iterdir()] == ["card.json"]


def test_options_that_need_ray() -> None:
    with pytest.raises(UserError, match="--address and --store are for Ray: add --executor ray"):
        ExecutorSettings(store="s3://x")


# ---------------------------------------------------------------- prepare


def settings(out: Path, **more: Any) -> PrepareSettings:
    return PrepareSettings(
        **{"source": "toyfaces", "out": out, "size": 16, "crop": "none", "limit": 70, **more}
    )


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_SHARD_ROWS", 25)
    monkeypatch.setattr(generation, "SHARD_ROWS", 25)


def same(one: Path, other: Path) -> bool:
    """The same files to the bit, and nothing beside them."""
    names = [sorted(file.name for file in folder.iterdir() if file.name[0] != ".") for folder in (one, other)]
    return names[0] == names[1] and ShardSet(one).hash == ShardSet(other).hash


@pytest.mark.usefixtures("small_shards")
def test_prepared_through_a_store_the_shards_are_the_same(stored: ExecutorSettings, tmp_path: Path) -> None:
    prepare(settings(tmp_path / "here", workers=1))
    done = prepare(settings(tmp_path / "ray"), stored)
    assert done.images == 70 and same(tmp_path / "here", tmp_path / "ray")
    import s3fs

    assert not s3fs.S3FileSystem().find("faces/shards/parts"), "nothing is left in the store"


@pytest.mark.usefixtures("small_shards")
def test_photos_skipped_and_stopped_and_gone_on_with(
    ray: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        write_face(Path("photos") / f"{number:02d}.png", number)
        if number % 7 == 3:
            (tmp_path / "photos" / f"{number:02d}.png").write_bytes(b"no picture")
    asked = partial(settings, source="photos", limit=None, label="real")
    prepare(asked(out=tmp_path / "here", workers=1))

    rows = iter(range(40))
    row_of = preparing._row

    def stopped(*facts: Any) -> Any:
        if next(rows, None) is None:
            raise KeyboardInterrupt
        return row_of(*facts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparing, "_row", stopped)
        prepare(asked(out=tmp_path / "ray"), ray)
    left = {file.name for file in (tmp_path / "ray").iterdir()}
    assert left <= {"00000.h5", "manifest.jsonl", "skipped.csv"}, "whole shards, or none"
    prepare(asked(out=tmp_path / "ray"), ray)
    assert same(tmp_path / "here", tmp_path / "ray")
    assert (tmp_path / "here" / "skipped.csv").read_text() == (tmp_path / "ray" / "skipped.csv").read_text()


# ---------------------------------------------------------------- generate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    network = FAMILIES.get("dcgan").generator(size=16, channels=8)
    card = {"size": 16, "network": {"size": 16, "channels": 8}, "crop": None}
    save_model(folder, "dcgan", network, card)
    return folder


@pytest.mark.usefixtures("small_shards")
def test_fakes_are_the_same_and_a_stopped_call_goes_on(
    model: Path, stored: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = generate(GenerateSettings(120, model, tmp_path / "here", trunc=0.7))
    asked = GenerateSettings(120, model, tmp_path / "ray", trunc=0.7)
    bar = iter(range(2))

    def stopped(*_: Any) -> None:
        if next(bar, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generation.tqdm, "update", stopped)
        generate(asked, where=stored)
    assert not (tmp_path / "ray" / "generated.json").exists()
    generate(asked, where=stored)
    assert same(here, tmp_path / "ray")
    facts = [json.loads((out / "generated.json").read_text()) for out in (here, tmp_path / "ray")]
    assert facts[0]["n"] == facts[1]["n"] == 120 and facts[1]["made"] <= 120


@pytest.mark.usefixtures("small_shards")
def test_photos_are_reconstructed_from_a_store(stored: ExecutorSettings, tmp_path: Path) -> None:
    network = Taesd(4, pool=False)
    (tmp_path / "taesd").mkdir()
    for part in ("encoder", "decoder"):
        save_file(getattr(network, part).state_dict(), tmp_path / "taesd" / f"{part}.safetensors")
    prepare(settings(tmp_path / "photos", size=32, limit=40, workers=1))
    asked = partial(
        GenerateSettings,
        0,
        tmp_path / "taesd",
        family="reconstruct",
        photos=tmp_path / "photos",
        split="train",
    )
    here = generate(asked(out=tmp_path / "here"))
    assert same(here, generate(asked(out=tmp_path / "ray"), where=stored))


def test_torchrun_and_ray_are_too_much(ray: ExecutorSettings, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="start it without torchrun"):
        generate(GenerateSettings(1, model, tmp_path / "x"), (0, 2), ray)


# ---------------------------------------------------------------- judging and measuring


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """120 reals and 90 other faces that are called fakes."""
    folder = tmp_path_factory.mktemp("data")
    shares = {"split": "0.5/0.2/0.3", "workers": 1}
    prepare(settings(folder / "real", limit=120, **shares))
    prepare(settings(folder / "fake", limit=90, seed=1, label="fake", generator="x", name="x", **shares))
    return folder / "real", folder / "fake"


@pytest.fixture(scope="module")
def detector(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cnn"
    return train(TrainSettings((data[0],), out, (data[1],), steps=4, batch=16, eval_every=2, device="cpu"))


def test_scores_are_the_same(
    detector: Path, data: tuple[Path, Path], stored: ExecutorSettings, tmp_path: Path
) -> None:
    asked = partial(EvaluateSettings, detector, data, split="all", bootstrap=0, force=True, device="cpu")
    found = [
        detect_evaluate(asked(out=tmp_path / name), where)
        for name, where in (("here", ExecutorSettings()), ("ray", stored))
    ]
    scores = [(tmp_path / name / "scores.csv").read_text() for name in ("here", "ray")]
    assert scores[0] == scores[1] and found[0]["overall"] == found[1]["overall"]


def test_verdicts_are_the_same(detector: Path, ray: ExecutorSettings, tmp_path: Path) -> None:
    for number in range(40):
        write_face(Path("photos") / f"{number:02d}.png", number)
    (tmp_path / "photos" / "damaged.png").write_bytes(b"no picture")
    judge = bundle.load(detector, "cpu")
    here = [each.as_dict() for each in predict(["photos"], judge)]
    assert here == [each.as_dict() for each in predict(["photos"], judge, where=ray, device="cpu")]
    assert len(here) == 41 and sum(bool(each["problem"]) for each in here) == 1
    with pytest.raises(UserError, match="Ray's workers draw no verdicts: leave --annotate out"):
        predict(["photos"], judge, PredictSettings(annotate=tmp_path / "drawn"), ray)


def test_figures_are_the_same(data: tuple[Path, Path], stored: ExecutorSettings, tmp_path: Path) -> None:
    weights = tmp_path / "vit.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), weights)
    asked = partial(
        QualitySettings, *data, metrics=("fd", "spectrum"), features=("timm:test_vit",), weights=(weights,),
        real_split="all", device="cpu", seed=1,
    )  # fmt: skip
    found = []
    for name, where in (("here", ExecutorSettings()), ("ray", stored)):
        with pytest.MonkeyPatch.context() as patch:  # what is measured of the reals is kept
            patch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))
            found.append(synth_evaluate(asked(out=tmp_path / f"{name}.json"), where)["details"])
    assert found[0] == found[1] and found[0]


def test_splits_and_audits_are_the_same(
    data: tuple[Path, Path], stored: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "_ROWS", 50)
    shutil.copytree(data[0], tmp_path / "one")
    shutil.copytree(data[0], tmp_path / "other")
    for name, where in (("one", ExecutorSettings()), ("other", stored)):
        leaks.split(SplitSettings((tmp_path / name,), redeal=True, workers=1), where)
    assert ShardSet(tmp_path / "one").hash == ShardSet(tmp_path / "other").hash
    asked = AuditSettings((str(data[0]),), (str(data[1]),), limit=30, workers=1)
    assert audit(asked).table() == audit(asked, stored).table()


# ---------------------------------------------------------------- a machine is lost


def _machines(alive: bool) -> list[Any]:
    return [node for node in cluster.import_ray().nodes() if node["Alive"] == alive]


@pytest.mark.slow
def test_20000_faces_though_a_machine_dies_in_the_middle(
    model: Path, data: tuple[Path, Path], detector: Path, server: None, tmp_path: Path
) -> None:
    """Prepared, made and judged through a store while the second machine is killed and a third one joins."""
    from ray.cluster_utils import Cluster

    if not _S3:
        pytest.skip("needs moto and s3fs")
    short = tempfile.mkdtemp(prefix="r", dir="/tmp")
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": False}
    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 5,
    }
    asked = partial(settings, limit=20_000, workers=2)
    prepare(asked(out=tmp_path / "here"))
    fakes = partial(GenerateSettings, 20_000, model)
    generate(fakes(tmp_path / "made"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("TMPDIR", short)
        head = {**node, "temp_dir": f"{short}/ray", "_system_config": quick}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        where = ExecutorSettings("ray", nodes.address, "s3://faces/many")
        killed, lost = [], []
        cluster.import_ray().shutdown()  # other tests' cluster: one that is connected would stay so

        def lose(second: Any, out: Path) -> None:
            """When the first of the two shards is there, so that half of the work is."""
            while not (out / "00000.h5").exists():
                time.sleep(0.05)
            nodes.remove_node(second, allow_graceful=False)
            killed.append(not (out / "00001.h5").exists())

        try:
            for name, work in (
                ("ray", lambda out: prepare(asked(out=out), where)),
                ("ray-made", lambda out: generate(fakes(out), where=where)),
            ):
                second = nodes.add_node(**node)
                killer = threading.Thread(target=lose, args=(second, tmp_path / name))
                killer.start()
                with where.connected():
                    assert len(_machines(True)) == 2, "it is this cluster, not that of the other tests"
                    work(tmp_path / name)
                    killer.join()
                    lost.append(len(_machines(False)))
            rows = (tmp_path / "here", tmp_path / "ray-made")
            judged = partial(
                EvaluateSettings, detector, rows, split="train", bootstrap=0, force=True, device="cpu"
            )
            scores = [
                detect_evaluate(judged(out=tmp_path / out), how)["overall"]
                for out, how in (("one", ExecutorSettings()), ("other", where))
            ]
        finally:
            nodes.shutdown()
            shutil.rmtree(short, ignore_errors=True)
    assert lost == [1, 2], "Ray saw each machine go"
    assert killed == [True, True], "each was killed while the second shard was under way"
    assert same(tmp_path / "here", tmp_path / "ray") and same(tmp_path / "made", tmp_path / "ray-made")
    assert scores[0] == scores[1]
