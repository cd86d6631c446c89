"""Several processes that train one detector, as torchrun starts them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from crossfake.detect.training import runs
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.device import rank_world
from crossfake.distributed import Ranks
from crossfake.errors import UserError
from crossfake.runs import Run


def _train(folder: Path, outs: list[str], settings: str, processes: int) -> None:
    """Trainings one after another in the same processes: starting them takes longest."""
    code = (
        "from pathlib import Path\nfrom crossfake.detect.training.train import train\n"
        "from crossfake.detect.training.settings import TrainSettings\n"
        f"for out, settings in zip({outs!r}, {settings}):\n"
        "    train(TrainSettings(out=Path(out), **settings))\n"
    )
    (folder / "run.py").write_text(code)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *(launch if processes > 1 else []), "run.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_two_processes_learn_the_same_as_one(real: Path, fake: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    common = (
        f"dict(real=(Path({str(real)!r}),), fake=(Path({str(fake)!r}),), batch=8, steps=4, eval_every=2, "
        "device='cpu', precision='fp32', lr=1e-3"
    )
    # a ViT has no batch norm; the cnn has some, whose statistics the processes average
    every = f"[{common}, model='test_vit', ema=0.5), {common}, model='cnn')]"
    for processes in (1, 2):
        _train(tmp_path, [f"plain{processes}", f"norms{processes}"], every, processes)
    one, two = (Run(tmp_path / f"plain{n}").log_lines() for n in (1, 2))
    assert [line["step"] for line in one] == [line["step"] for line in two] == [2, 4]
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["val_ap"] == pytest.approx(a["val_ap"], abs=1e-3)
    states = [load_file(tmp_path / f"plain{n}" / "model" / "model.safetensors") for n in (1, 2)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=2e-4, rtol=1e-3, msg=name)
    assert Run(tmp_path / "norms2").finished and len(Run(tmp_path / "norms2").log_lines()) == 2


def test_a_process_alone_keeps_everything_to_itself() -> None:
    ranks = Ranks(torch.device("cpu"), 5, together=2)
    tensor = torch.tensor([1.0, 2.0])
    ranks.average([tensor])
    assert tensor.tolist() == [1, 2] and ranks.share([1, 2, 3]) == [1, 2, 3] and ranks.is_main
    assert ranks.agreed(True) and not ranks.agreed(False) and ranks.gathered(tensor) is tensor
    assert rank_world() == (0, 1)


def test_a_batch_that_cannot_be_shared_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        UserError, match="batch of 6 cannot be shared by 2 processes: give --batch a multiple of 4"
    ):
        Ranks(torch.device("cpu"), 6, together=2)


def test_a_stop_is_what_the_vote_says(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that writes need not be the one that was sent a signal."""
    monkeypatch.setattr(Ranks, "agreed", lambda self, wish: True)
    settings = TrainSettings((real,), tmp_path / "run", (fake,), batch=8, steps=4, device="cpu")
    run = Run(train(settings))
    assert not run.finished and not (run.path / "model").exists()
    assert torch.load(run.checkpoints / "last.pt", weights_only=True)["step"] == 1


def test_a_run_that_kept_a_gpu_goes_on_with_one_each(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Run(Path(shutil.copytree(trained, tmp_path / "old")))
    old.config_file.write_text(yaml.safe_dump({**old.config, "device": "cuda:0"}))
    assert runs.resumed(old.path).device == "cuda:0"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert runs.resumed(old.path).device == "auto"
