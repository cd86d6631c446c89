import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossfake.device import pick_device
from crossfake.synth.training.runs import make_plan
from crossfake.synth.training.settings import TrainSettings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu_at_tiny_size(tmp_path: Path) -> None:
    small = "--batch 8 --channels 64 --images 16 --seconds 0.01"
    told = {
        "PYTHON": sys.executable, "DEVICE": "cpu", "SIZES": "16", "SIDE": "32", "MODELS": "cnn", "SMALL": small,
        "TESTS": str(Path(__file__)), "FAMILIES": "dcgan", "PATIENCE": "20",
    }  # a table  # fmt: skip
    done = subprocess.run(
        [SCRIPT, tmp_path], env={**os.environ, **told}, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == ["rates", "resume", "detector"]
    assert all(lines[0][p][what] > 0 for p in ("fp32", "bf16") for what in ("train", "generate", "train_gb"))
    assert 0 <= lines[0]["levels_apart"] < 20
    assert lines[1] == {"part": "resume", "steps": [16, 16], "largest_difference": 0.0}
    assert lines[2]["train"] > 0
    told |= {"FAMILIES": "none", "SIZES": "16", "MODELS": "none"}
    done = subprocess.run(
        [SCRIPT, tmp_path], env={**os.environ, **told}, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 1 and "failed with" in done.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["stylegan2", "r3gan", "stylegan3", "dcgan"])
def test_a_step_in_bfloat16_is_near_to_one_in_float32(family: str) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        settings = TrainSettings(
            Path(), Path(), family, batch=8, channels=256, device="cuda", precision=precision
        )
        plan = make_plan(settings, 32)
        assert plan.family.learner is not None and plan.device == pick_device("cuda")
        learner = plan.family.learner(plan, 0)
        real = torch.randint(
            0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        losses.append([float(learner.train_step(real)[name]) for name in ("loss_d", "loss_g")])
    assert torch.allclose(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=0.1, atol=0.1)
