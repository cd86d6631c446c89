"""What each stage asks of a cluster that has a GPU; one that is only said to be there."""

import operator
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crossfake import cluster
from crossfake.datasets.prepare import prepare
from crossfake.datasets.sources.fixtures import write_face
from crossfake.detect.bundle import bundle
from crossfake.detect.evaluation.evaluate import evaluate
from crossfake.detect.prediction.predict import predict
from crossfake.detect.settings import EvaluateSettings
from crossfake.executor import ExecutorSettings, map_in_order
from crossfake.synth.sampling.generation import generate
from crossfake.synth.settings import GenerateSettings

from .conftest import settings


@pytest.mark.slow
def test_networks_ask_for_a_gpu_and_nothing_else_does(
    nodes: Any,
    ray: ExecutorSettings,
    model: Path,
    data: tuple[Path, Path],
    detector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, float] = {}
    init = cluster.Tasks.__init__

    def noted(self: Any, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        asked[self.what] = self.asked["GPU"]

    monkeypatch.setattr(cluster.Tasks, "__init__", noted)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # Ray would not believe it
    third = nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
    try:
        while not cluster.import_ray().cluster_resources().get("GPU"):
            time.sleep(0.1)
        gpus = cluster.import_ray().get_gpu_ids
        for device, expected in (("auto", [0]), ("cpu", [])):
            found = map_in_order(operator.call, [gpus] * 2, where=ray, demand=cluster.computing(device))
            assert [ids for _, ids in found] == [expected] * 2
        asked.clear()
        prepare(settings(tmp_path / "faces"), ray)
        generate(GenerateSettings(30, model, tmp_path / "fakes"), where=ray)
        evaluate(
            EvaluateSettings(detector, data, out=tmp_path / "out", split="all", bootstrap=0, force=True), ray
        )
        write_face(tmp_path / "face.png", 0)
        judged = predict([tmp_path / "face.png"], bundle.load(detector, "cpu"), where=ray, device="auto")
        assert [each.judged for each in judged] == [True]
    finally:
        nodes.remove_node(third)
    assert {what for what, gpus in asked.items() if not gpus} == {"handle_apart", "writing a shard"}
    assert all(number == 1 for number in asked.values() if number) and len(asked) > 4


@pytest.mark.slow
def test_ctrl_c_at_a_terminal(model: Path, tmp_path: Path) -> None:
    """Every process of the command's group gets it, as from a terminal; the same command goes on."""
    import os
    import signal
    import subprocess
    import sys

    from crossfake.datasets.shards import ShardSet

    command = [str(Path(sys.executable).parent / "synth"), "generate", "--n", "25000", "--device", "cpu"]
    command += ["--model", str(model), "--precision", "fp32"]
    run = partial(subprocess.Popen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    there = [*command, "--out", str(tmp_path / "ray"), "--executor", "ray"]
    first = run(there)
    while not (tmp_path / "ray" / "00000.h5").exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    said = first.communicate(timeout=120)[0].decode()
    assert first.returncode == 130 and "Traceback" not in said, said
    assert "same command" in said and not (tmp_path / "ray" / "generated.json").exists(), said
    left = {file.name for file in (tmp_path / "ray").iterdir() if file.suffix == ".h5"}
    assert "00000.h5" in left and not [*(tmp_path / "ray").glob(".part-*")]
    assert run(there).wait() == 0 and run([*command, "--out", str(tmp_path / "here")]).wait() == 0
    assert ShardSet(tmp_path / "ray").hash == ShardSet(tmp_path / "here").hash
