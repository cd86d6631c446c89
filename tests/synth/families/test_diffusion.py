import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossfake.errors import MissingDependency, UserError
from crossfake.synth.families.diffusion import DenoisingLearner, Diffusion
from crossfake.synth.importing.importer import import_model
from crossfake.synth.sampling.models import load_model
from crossfake.synth.settings import ImportSettings
from crossfake.synth.training.runs import make_plan
from crossfake.synth.training.settings import TrainSettings


def test_the_vector_decides_the_image() -> None:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = Diffusion(16, 128, classes=2, steps=3).eval().requires_grad_(False)
    latents, labels = torch.randn(3, network.latent_dim), torch.eye(2)[[0, 1, 0]]
    images = network(latents, labels=labels)
    assert images.shape == (3, 3, 16, 16) and images.abs().max() <= 1
    torch.testing.assert_close(network(latents[1:2], labels=labels[1:2]), images[1:2], atol=1e-4, rtol=1e-4)
    other = network(latents, labels=labels.flip(1))
    assert not torch.allclose(other, images)
    assert network(latents, psi=0.0, labels=labels)[0].allclose(network(latents, psi=0.0, labels=labels)[2])


def test_norms_are_float32_whatever_convolutions_are() -> None:
    pytest.importorskip("diffusers")
    network = Diffusion(16, 128)
    norm = next(module for module in network.modules() if isinstance(module, torch.nn.GroupNorm))
    seen: list[torch.dtype] = []
    norm.register_forward_hook(lambda _, given, made: seen.extend([given[0].dtype, made.dtype]))
    network.denoise(torch.randn(2, 3, 16, 16), torch.tensor([1, 500]), torch.bfloat16, None).sum().backward()
    assert seen == [torch.float32] * 2


def test_it_learns_to_denoise_and_its_samples_look_like_the_data(reals: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    settings = TrainSettings(
        reals, tmp_path, family="diffusion", batch=8, channels=128, lr=2e-3, device="cpu"
    )
    learner = DenoisingLearner(make_plan(settings, 16), 0)
    flat = torch.full((8, 3, 16, 16), 200, dtype=torch.uint8)
    losses = [float(learner.train_step(flat)["loss"]) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:3])
    network: Any = learner.generator
    with torch.no_grad():
        made = network.eval()(torch.randn(4, network.latent_dim))
    assert abs(float(made.mean()) - (200 / 127.5 - 1)) < 0.3


def test_without_the_library_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "diffusers":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"pip install .*'\.\[diffusion\]'"):
        Diffusion(16, 128)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_pretrained_pipeline_is_a_generator_like_any_other(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    import_model(
        ImportSettings(tmp_path / "ddpm", tmp_path / "model", name="ddpm-test", license="MIT", size=8)
    )
    model: Any = load_model(tmp_path / "model")
    assert model.name == "ddpm-test" and model.card["license"] == "MIT" and model.size == 8
    model.network.steps = 2
    vectors = model.draw(0, 0)[:3]
    images = model.render(vectors)
    assert images.shape == (3, 8, 8, 3) and not np.array_equal(images[0], images[1])
    assert np.abs(model.render(vectors[1:2]).astype(int) - images[1:2].astype(int)).max() <= 1
    (tmp_path / "ddpm" / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        import_model(ImportSettings(tmp_path / "ddpm", tmp_path / "other"))
    assert not (tmp_path / "other").exists()
