import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.train import train

PUBLISHED = {"noise": True, "mixing": 0.9, "path_weight": 2.0}  # what stylegan2 leaves out on a CPU


@pytest.fixture(scope="session")
def reals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 40 smooth 16×16 images, 32 of them for training."""
    folder = tmp_path_factory.mktemp("reals")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    with ShardWriter(folder, size=16, attributes={"crop": {"policy": "none"}}) as writer:
        for number, image in enumerate(images):
            writer.append(
                image,
                Row(label=0, source="squares", split="train" if number < 32 else "test", group=str(number)),
            )
    return folder


@pytest.fixture
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """New diffusion models draw in two passes: twenty would take the tests minutes."""
    from crossfake.synth.families.diffusion import Diffusion

    monkeypatch.setattr(Diffusion.__init__, "__defaults__", (0, 2))


@pytest.fixture(scope="session")
def trained(reals: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A finished two-step run of a family, made once; ``noise`` as in the settings."""
    runs: dict[tuple[str, bool | None], Path] = {}

    def run(family: str, noise: bool | None = None) -> Path:
        if family == "diffusion":
            pytest.importorskip("diffusers")
        key = (family, noise)
        if key not in runs:
            out = tmp_path_factory.mktemp("runs") / family
            runs[key] = train(
                TrainSettings(reals, out, family, kimg=0.016, batch=8, channels=64, noise=noise, device="cpu")
            )
            if family == "diffusion":  # as in few_passes
                card = runs[key] / "model" / "model.json"
                facts = json.loads(card.read_text())
                facts["network"]["steps"] = 2
                card.write_text(json.dumps(facts))
        return runs[key]

    return run


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the FID network's shapes that keep the activations' scale: the published file is 95 MB."""
    from crossfake.synth.quality.features import empty_network

    random = torch.Generator().manual_seed(0)
    weights = {}
    for name, like in empty_network().state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
        elif like.ndim == 4:
            values = torch.empty(like.shape).normal_(generator=random)
            weights[name] = values * (2 / like[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            weights[name] = 0.5 + torch.rand(like.shape, generator=random)
        else:
            weights[name] = 0.1 * torch.randn(like.shape, generator=random)
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(weights, file)
    return file


def same_state(one: object, other: object, at: str = "") -> None:
    """Nested dictionaries of tensors, to the bit."""
    if isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys(), at
        for key in one:
            same_state(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor) and torch.equal(one, other), at
    else:
        assert one == other, at
