"""A machine is killed while it works."""

import shutil
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crossfake import cluster
from crossfake.datasets.prepare import prepare
from crossfake.detect.evaluation.evaluate import evaluate as detect_evaluate
from crossfake.detect.settings import EvaluateSettings
from crossfake.executor import ExecutorSettings
from crossfake.synth.sampling.generation import generate
from crossfake.synth.settings import GenerateSettings

from .conftest import S3, same, settings


def _machines(alive: bool) -> list[Any]:
    return [node for node in cluster.import_ray().nodes() if node["Alive"] == alive]


@pytest.mark.slow
def test_20000_faces_though_a_machine_dies_in_the_middle(
    model: Path, data: tuple[Path, Path], detector: Path, server: None, tmp_path: Path
) -> None:
    """Prepared, made and judged through a store while the second machine is killed and a third one joins."""
    from ray.cluster_utils import Cluster

    if not S3:
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
                    while len(_machines(False)) == len(lost):  # Ray takes some seconds to notice
                        time.sleep(0.5)
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
