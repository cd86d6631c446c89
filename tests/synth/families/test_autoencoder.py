from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.synth.families.autoencoder import Autoencoder, ReconstructionLearner, pyramid_distance
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import load_model
from crossfake.synth.settings import GenerateSettings
from crossfake.synth.training.runs import make_plan
from crossfake.synth.training.settings import TrainSettings


@pytest.mark.parametrize("size", [16, 32, 64])
def test_shapes(size: int) -> None:
    network = Autoencoder(size, 256).eval()
    images = network(torch.randn(3, network.latent_dim))
    assert images.shape == (3, 3, size, size) and images.dtype == torch.float32
    mean, spread = network.encode(images)
    assert mean.shape == spread.shape == (3, 16, 8, 8)


def test_new_latents_have_the_moments_of_the_real_ones() -> None:
    torch.manual_seed(0)
    network = Autoencoder(16, 64)
    mixing, shift = torch.randn(1024, 40) / 6, torch.randn(1024)
    latents = torch.randn(4000, 40) @ mixing.T + shift
    mean, second = latents.mean(dim=0), latents.T @ latents / len(latents)
    for _ in range(1500):
        network.track(mean, second)
    drawn = network.mean + torch.randn(4000, 1024) @ network.factor().T
    assert (drawn.mean(dim=0) - shift).abs().mean() < 0.05
    wanted, found = torch.cov(latents.T), torch.cov(drawn.T)
    assert (wanted - found).norm() < 0.25 * wanted.norm()


def test_it_learns_to_reconstruct(reals: Path, tmp_path: Path) -> None:
    settings = TrainSettings(
        reals, tmp_path, family="autoencoder", batch=8, channels=256, lr=2e-3, device="cpu"
    )
    learner = ReconstructionLearner(make_plan(settings, 16), 0)
    real = torch.from_numpy(ShardSet(reals).read_many(range(8))).permute(0, 3, 1, 2)
    losses = [float(learner.train_step(real)["distance"]) for _ in range(150)]
    assert np.mean(losses[-10:]) < 0.5 * losses[0]


def test_photos_come_back_with_their_groups(
    trained: Callable[[str], Path], reals: Path, tmp_path: Path
) -> None:
    run = trained("autoencoder")
    model: Any = load_model(run)
    photos = ShardSet(reals)
    out = generate(GenerateSettings(40, run, tmp_path / "out", photos=reals))
    made = ShardSet(out)
    rows = photos.select(split="train")
    assert made.columns["group"].tolist()[:32] == photos.columns["group"][rows].tolist()
    assert made.columns["group"].tolist()[32:] == photos.columns["group"][rows[:8]].tolist()  # round again
    assert set(made.columns["split"]) == {"train"} and made.columns["origin"][3].startswith("3 of ")
    alone = np.stack(model.edit(photos.read_each(rows[:64]), [], torch.zeros(32, 1024)))
    assert np.abs(alone[:32].astype(int) - made.read_many(range(32)).astype(int)).max() <= 1
    with pytest.raises(UserError, match="cannot work on photos"):
        generate(GenerateSettings(4, trained("dcgan"), tmp_path / "x", photos=reals))
    with pytest.raises(UserError, match="another model or of other settings"):
        generate(GenerateSettings(40, run, tmp_path / "out"))


def test_the_pyramid_sees_edges_that_the_mean_difference_does_not() -> None:
    flat = torch.zeros(1, 3, 16, 16)
    shifted = flat + 0.1
    checks = flat + 0.1 * (torch.arange(16) % 2 * 2 - 1.0)
    assert pyramid_distance(flat, shifted) < 1e-6 < 0.05 < pyramid_distance(flat, checks)
