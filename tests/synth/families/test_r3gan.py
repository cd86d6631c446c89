import pytest
import torch
import torch.nn.functional as F

from crossfake.synth.families.r3gan import Discriminator, Generator, RelativisticLearner, Residual
from crossfake.synth.training.adversarial import gradient_penalty
from crossfake.synth.training.runs import make_plan
from crossfake.synth.training.settings import TrainSettings


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [16, 64])
def test_shapes_and_finite_gradients(size: int, classes: int) -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(size, 256, classes), Discriminator(size, 256, classes)
    labels = F.one_hot(torch.arange(4) % classes, classes).float() if classes else None
    images = generator(torch.randn(4, generator.latent_dim), labels=labels)
    assert images.shape == (4, 3, size, size) and images.dtype == torch.float32
    assert 0.3 < images.std() < 3  # variance is kept from layer to layer
    logits = discriminator(images, labels=labels)
    assert logits.shape == (4,) and 0.01 < logits.abs().mean() < 10
    (logits.sum() + gradient_penalty(lambda x: discriminator(x, labels=labels), images).sum()).backward()
    missing = [
        n for n, p in discriminator.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not missing


def test_a_block_starts_as_the_identity_and_can_learn() -> None:
    block, x = Residual(16, depth=10), torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.reduce.weight.grad is not None and block.reduce.weight.grad.abs().max() > 0


def test_classes_and_truncation_matter() -> None:
    torch.manual_seed(0)
    generator = Generator(16, 256, classes=2).eval()
    latents, labels = torch.randn(2, generator.latent_dim), torch.eye(2)
    assert not torch.allclose(generator(latents, labels=labels), generator(latents, labels=labels.flip(0)))
    same = generator(latents, psi=0.0, labels=labels[:1].expand(2, -1))
    torch.testing.assert_close(same[0], same[1])


def test_losses_are_relative(reals: object, tmp_path: object) -> None:
    """Jolicoeur-Martineau 2019: only the difference of the logits counts."""
    settings = TrainSettings(reals, tmp_path, family="r3gan", batch=8, channels=256, device="cpu")  # type: ignore[arg-type]
    learner = RelativisticLearner(make_plan(settings, 16), 0)
    real, fake = torch.randn(8), torch.randn(8)
    loss = learner.loss_d(real, fake)
    torch.testing.assert_close(loss, learner.loss_d(real + 7, fake + 7))
    torch.testing.assert_close(loss, F.softplus(fake - real).mean())
    assert learner.plan.gamma == 1.0
    images = torch.randn(8, 3, 16, 16)
    learner.optimizer_d.zero_grad()
    found = learner.penalties(images, images.flip(0), None)
    expected = gradient_penalty(lambda x: learner.discriminator(x, learner.plan.dtype), images[:2]).mean()
    torch.testing.assert_close(found["r1"], expected.detach(), rtol=0.05, atol=1e-6)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.discriminator.parameters())
