"""Cells on Ray: a real cluster of two nodes, one of which is killed; and what a worker does, without one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossfake.cluster import connected, packed
from crossfake.datasets import remote
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.experiments.design.config import load, to_dict
from crossfake.experiments.run import cluster
from crossfake.experiments.run.cluster import Ray
from crossfake.experiments.run.executors import Local, attempt
from crossfake.experiments.run.running import Experiment


def write(folder, label, count, seed):
    with ShardWriter(folder, size=16) as writer:
        for number in range(count):
            image = toyface((seed, number), 16)
            if label:
                image = np.repeat(np.repeat(image[::2, ::2], 2, 0), 2, 1)
            split = ("train", "train", "val", "test")[number % 4]
            generator = f"{folder.name}-gan" if label else ""
            writer.append(image, Row(label, "toy", generator, split, f"{folder.name}:{number}"))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    for seed, (name, label, count) in enumerate(
        [("real", 0, 80), ("old", 1, 40), ("mine", 1, 40), ("new", 1, 20)]
    ):
        write(folder / name, label, count, seed)
    return folder


def configured(base, **more):
    roles = {"old": "seen", "mine": "synthetic", "new": "unseen"}
    return load(
        {
            "name": "tiny",
            "protocol": "synthetic-ablation",
            "detectors": ["cnn"],
            "seeds": [0],
            "real": [base / "real"],
            "generators": [{"name": name, "role": role, "dir": base / name} for name, role in roles.items()],
            "train": {"steps": 2, "batch": 8, "eval_every": 2},
            "resamples": 100,
            "device": "cpu",
            **more,
        }
    )


@pytest.fixture(scope="module")
def specs(base):
    return Experiment(configured(base), base / "out").specs


@pytest.fixture(scope="module")
def local(base, specs):
    """The cells as they are run here."""
    for spec in specs:
        assert attempt(spec, base / "local") is None
    return base / "local"


def scores(cells):
    found = {file.relative_to(cells): file.read_text() for file in cells.glob("*/scores/*.csv")}
    thresholds = {
        card.parent.name: json.loads(card.read_text())["threshold"] for card in cells.glob("*/cell.json")
    }
    return found, thresholds


def whole(cells):
    """The folders of cells, all of which must be complete."""
    folders = [folder for folder in cells.glob("*") if not folder.name.startswith(".arriving-")]
    for folder in folders:
        tests = json.loads((folder / "cell.json").read_text())["tests"]
        assert len(list((folder / "scores").iterdir())) == len(tests)
        assert (folder / "run" / "finished.json").exists() and (
            folder / "run" / "model" / "bundle.json"
        ).exists()
    return {folder.name for folder in folders}


def sent(spec, store=None, trained=None):
    """What a worker makes of it, in this process."""
    return cluster._cell((cluster._absolute(spec), store, trained or {}))


def test_a_worker_without_the_shards_fetches_them(base, specs, local, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    url = f"file://{tmp_path}/store"
    Ray(store=url)._share(specs[:1])
    away = {folder: tmp_path / "nowhere" / folder.name for folder in cluster._shards(specs[0])}
    moved = cluster._moved(specs[0], away)
    archive, reason = sent(moved, url)
    assert reason == "" and {path.name for path in tmp_path.glob("crossfake-*")} == set()
    assert len([path for path in remote.cache().iterdir() if path.is_dir()]) == len(away)
    cluster._arrive(archive, tmp_path / "cells" / moved.key)
    assert whole(tmp_path / "cells") == {moved.key}
    assert not (tmp_path / "cells" / moved.key / "run" / "checkpoints").exists()
    for file, text in scores(tmp_path / "cells")[0].items():
        assert text == (local / file).read_text()
    archive, reason = sent(moved)
    assert archive is None and "does not have the shards" in reason and "--store URL" in reason


def test_a_trained_cell_travels_and_only_gains_scores(base, specs, local, tmp_path):
    folder = tmp_path / "cells" / specs[0].key
    shutil.copytree(local / folder.name, folder)
    model = (folder / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    lost = folder / "scores" / specs[0].tests[-1].file
    text = lost.read_text()
    lost.unlink()
    before = json.loads((folder / "cell.json").read_text())
    archive, reason = sent(specs[0], trained={folder.name: cluster._trained(folder)})
    assert reason == ""
    cluster._arrive(archive, folder)
    assert lost.read_text() == text
    assert (folder / "run" / "model" / "model.safetensors").stat().st_mtime_ns == model
    assert json.loads((folder / "cell.json").read_text())["seconds"] == before["seconds"], (
        "it is not trained anew"
    )


def test_an_ensemble_is_sent_with_its_trained_members(base, tmp_path):
    fakes = [{"name": name, "fakes": [name]} for name in ("old", "mine")]
    changes = {
        "conditions": [*fakes, {"name": "both", "ensemble": ["old", "mine"]}],
        "protocol": "conditions",
    }
    *members, spec = Experiment(configured(base, **changes), tmp_path / "out").specs
    cells = tmp_path / "cells"
    assert [attempt(each, cells) for each in (*members, spec)] == [None] * 3
    archive, reason = sent(spec, trained={each.key: cluster._trained(cells / each.key) for each in members})
    assert reason == ""
    cluster._arrive(archive, tmp_path / "arrived" / spec.key)
    arrived = tmp_path / "arrived" / spec.key
    assert [(arrived / file).read_text() for file in sorted(f"scores/{t.file}" for t in spec.tests)] == [
        file.read_text() for file in sorted((cells / spec.key / "scores").iterdir())
    ]


def test_what_a_killed_run_left_is_replaced(specs, local, tmp_path):
    folder = tmp_path / "cells" / specs[0].key
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "checkpoints" / "last.pt").write_bytes(b"half")
    assert cluster._trained(folder) is None
    cluster._arrive(packed(local / folder.name, "checkpoints"), folder)
    assert whole(tmp_path / "cells") == {folder.name} and not (folder / "run" / "checkpoints").exists()


def test_failures_come_back_as_words(specs):
    settings = replace(specs[0].settings, model="no_such_model")
    archive, reason = sent(replace(specs[0], settings=settings))
    assert archive is None and "no_such_model" in reason and "\n" not in reason


def test_a_store_that_does_not_work_is_found_before_anything_runs(specs, tmp_path):
    with pytest.raises(UserError, match="the store nowhere://x does not work"):
        Ray(store="nowhere://x")._share(specs)


@pytest.fixture
def short():
    """Ray's sockets need a short path."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_two_nodes_one_killed_in_the_middle_give_the_same_table(base, short, tmp_path, monkeypatch):
    """Neither node finds the shards; the second dies while it trains, and its cells are run again on the first."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    data = Path(shutil.copytree(base, tmp_path / "data"))
    config = configured(data, seeds=[0, 1], train={"steps": 30, "batch": 8, "eval_every": 10})
    specs = Experiment(config, tmp_path / "out").specs
    assert [error for _, error in Local().run(specs, tmp_path / "local")] == [None] * 4

    for name in ("first", "second"):
        (short / name / "ray").mkdir(parents=True)  # Ray notes its address there
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 5,
    }
    monkeypatch.setenv("TMPDIR", str(short / "first"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(short / "first"))
    nodes = Cluster(
        initialize_head=True, head_node_args={**node, "temp_dir": str(short / "ray"), "_system_config": quick}
    )
    monkeypatch.setenv("TMPDIR", str(short / "second"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(short / "second"))
    second = nodes.add_node(**node)
    share = Ray._share

    def share_and_hide(self, specs):
        share(self, specs)
        data.rename(tmp_path / "hidden")

    monkeypatch.setattr(Ray, "_share", share_and_hide)
    training = []

    def kill():
        until = time.monotonic() + 120
        while not training and time.monotonic() < until:
            training.extend(short.glob("second/crossfake-*/*/run/config.yaml"))
            time.sleep(0.05)
        nodes.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = list(Ray(nodes.address, f"file://{tmp_path}/store").run(specs, tmp_path / "ray"))
        killer.join()
    finally:
        nodes.shutdown()
    assert training and training[0].exists(), "it was killed before it could tidy up"
    assert not (training[0].parent / "finished.json").exists()
    for name in ("first", "second"):
        assert len(list((short / name / "crossfake" / "shards").glob("*.lock"))) == 4, (
            "each node fetched its own"
        )
    assert [error for _, error in found] == [None] * 4
    assert whole(tmp_path / "ray") == {spec.key for spec in specs}
    assert scores(tmp_path / "ray") == scores(tmp_path / "local")


def started(config, out, short):
    """The command in a process of its own; one cell at a time, since each takes all cores."""
    code = "from crossfake.cli import main; main()"
    words = ["experiment", "run", str(config), "--executor", "ray", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), "RAY_TMPDIR": str(short)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def until_cells(process, cells, count):
    while len(list(cells.glob("*/cell.json"))) < count:
        assert process.poll() is None, process.stderr.read()[-2000:]
        time.sleep(0.05)


@pytest.mark.slow
def test_a_driver_that_is_killed_or_stopped_leaves_whole_cells(base, short, tmp_path):
    pytest.importorskip("ray")
    config, out = tmp_path / "tiny.yaml", tmp_path / "out"
    config.write_text(json.dumps(to_dict(configured(base, seeds=[0, 1]))))
    killed = started(config, out, short)
    until_cells(killed, out / "cells", 1)
    killed.kill()
    killed.communicate()
    before = whole(out / "cells")
    assert 1 <= len(before) < 4

    stopped = started(config, out, short)
    until_cells(stopped, out / "cells", len(before) + 1)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 2 and "the experiment was stopped: run the same command again" in said
    assert "Traceback" not in said
    more = whole(out / "cells")
    assert before < more and len(more) < 4

    failing = configured(base, seeds=[0, 1], detectors=["cnn", "no_such_model"])
    config.write_text(json.dumps(to_dict(failing)))
    finished = started(config, out, short)
    finished.communicate()
    assert finished.returncode == 0 and len(whole(out / "cells")) == 4
    failures = json.loads((out / "experiment.json").read_text())["failures"]
    assert len(failures) == 4 and all("no_such_model" in failure["error"] for failure in failures)


@pytest.mark.slow
def test_demands_that_no_machine_can_hold(specs, short, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    for change, expected in (
        ({"memory": 1e6}, "can hold cnn, without, seed 0: 1 cores, 0 GPUs and 1000000 GiB"),
        ({"settings": replace(specs[0].settings, device="cuda:7")}, "1 GPUs"),
        ({"processes": 1000}, "1000 cores"),
    ):
        with connected(None), pytest.raises(UserError, match=expected):
            list(Ray().run([replace(specs[0], **change)], Path("cells")))
    with pytest.raises(
        UserError, match="no Ray cluster answers at 127.0.0.1:1 .*: start one with 'ray start"
    ):
        list(Ray("127.0.0.1:1").run(specs, Path("cells")))


@pytest.mark.slow
def test_a_cell_trained_by_two_processes(specs, tmp_path):
    pytest.importorskip("accelerate")
    together = replace(specs[0], processes=2)
    assert attempt(together, tmp_path) is None
    assert whole(tmp_path) == {together.key}
    wrong = replace(together, key="wrong", settings=replace(together.settings, batch=6))
    assert "a batch of 6 cannot be shared by 2 processes" in str(attempt(wrong, tmp_path))
