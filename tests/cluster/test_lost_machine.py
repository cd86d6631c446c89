"""A machine is killed while it works."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crossfake import cluster
from crossfake.datasets.prepare import prepare
from crossfake.datasets.sources.fixtures import write_face
from crossfake.detect.bundle import bundle
from crossfake.detect.evaluation.evaluate import evaluate as detect_evaluate
from crossfake.detect.prediction.predict import predict
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
    """Prepared, made, evaluated and predicted; each time the second machine is killed, and the next has another."""
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
    for number in range(20_000):
        face = Path("photos") / f"{number % 50:05d}.png"
        if number < 50:
            write_face(face, number)
        else:
            shutil.copyfile(face, face.with_name(f"{number:05d}.png"))
    judge = bundle.load(detector, "cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("TMPDIR", short)
        head = {**node, "temp_dir": f"{short}/ray", "_system_config": quick}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        where = ExecutorSettings("ray", nodes.address, "s3://faces/many")
        killed, lost = [], []
        cluster.import_ray().shutdown()  # other tests' cluster: one that is connected would stay so

        def lose(second: Any, begun: Callable[[], bool], ended: threading.Event) -> None:
            """While the work is under way."""
            while not begun() and not ended.is_set():
                time.sleep(0.05)
            nodes.remove_node(second, allow_graceful=False)
            killed.append(not ended.is_set())

        def through_a_loss(begun: Callable[[], bool], work: Callable[[], Any]) -> Any:
            """The result of the work, the second of whose machines is killed."""
            second, ended = nodes.add_node(**node), threading.Event()
            killer = threading.Thread(target=lose, args=(second, begun, ended))
            with where.connected():
                assert len(_machines(True)) == 2, "it is this cluster, not that of the other tests"
                killer.start()
                found = work()
                ended.set()
                killer.join()
                while len(_machines(False)) == len(lost):  # Ray takes some seconds to notice
                    time.sleep(0.5)
                lost.append(len(_machines(False)))
            return found

        def half(out: Path) -> Callable[[], bool]:
            """Whether the first of two shards is there, and the second is not."""
            return lambda: (out / "00000.h5").exists() and not (out / "00001.h5").exists()

        def busy() -> bool:
            """Whether both machines work."""
            return not cluster.import_ray().available_resources().get("CPU")

        rows = (tmp_path / "here", tmp_path / "ray-made")
        judged = partial(
            EvaluateSettings, detector, rows, split="train", bootstrap=0, force=True, device="cpu"
        )
        try:
            through_a_loss(half(tmp_path / "ray"), lambda: prepare(asked(out=tmp_path / "ray"), where))
            made = tmp_path / "ray-made"
            through_a_loss(half(made), lambda: generate(fakes(made), where=where))
            scores = through_a_loss(busy, lambda: detect_evaluate(judged(out=tmp_path / "scored"), where))
            verdicts = through_a_loss(
                busy, lambda: list(predict(["photos"], judge, where=where, device="cpu"))
            )
        finally:
            nodes.shutdown()
            shutil.rmtree(short, ignore_errors=True)
    assert lost == [1, 2, 3, 4], "Ray saw each machine go"
    assert killed == [True] * 4, "each was killed while the work was under way"
    assert same(tmp_path / "here", tmp_path / "ray") and same(tmp_path / "made", made)
    assert scores["overall"] == detect_evaluate(judged(out=tmp_path / "one"))["overall"]
    assert [one.as_dict() for one in verdicts] == [one.as_dict() for one in predict(["photos"], judge)]
