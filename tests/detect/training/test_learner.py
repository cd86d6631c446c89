from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from crossfake.detect.training.contrastive import supervised_contrastive
from crossfake.detect.training.data import Kind
from crossfake.detect.training.learner import DetectorLearner, mixed_up
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.weighing import Weighed
from crossfake.errors import UserError

NOWHERE = Path("nowhere")


def _learner(size: int = 16, **changed: object) -> DetectorLearner:
    base = {"steps": 20, "batch": 8, "device": "cpu", "precision": "fp32", "lr": 1e-2}
    return DetectorLearner(TrainSettings((NOWHERE,), NOWHERE, (NOWHERE,), **{**base, **changed}), size)  # type: ignore[arg-type]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "cnn.pt"
    torch.save(_learner().network.state_dict(), file)
    return file


def _batch(step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(step)
    images = torch.from_numpy(rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8))
    return images, torch.tensor([0.0] * 4 + [1.0] * 4)


def test_a_probe_trains_the_head_and_nothing_else(weights: Path) -> None:
    learner = _learner(weights=weights, tune="probe")
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    learner.train_step(*_batch())
    changed = {n for n, t in learner.network.state_dict().items() if not torch.equal(t, before[n])}
    assert changed and all(name.startswith("head") for name in changed)  # nor do batch norms' statistics move
    trained, frozen = learner.count()
    assert trained == sum(p.numel() for p in learner.network.head.parameters()) and frozen > trained


def test_stages_are_unfrozen_one_after_another(weights: Path) -> None:
    learner = _learner(weights=weights, tune="gradual", steps=40)
    counts = []
    for step in range(24):
        counts.append(learner.unfrozen())
        before = [p.detach().clone() for stage in learner.stages for p in stage]
        learner.train_step(*_batch(step))
        frozen = sum(len(stage) for stage in learner.stages[: -counts[-1]])
        after = [p for stage in learner.stages for p in stage]
        assert all(torch.equal(a, b) for a, b in zip(before[:frozen], after[:frozen], strict=True))
        assert not torch.equal(before[-1], after[-1])
    assert counts[0] == 1 and counts[-1] == len(learner.stages)
    assert all(0 <= b - a <= 1 for a, b in zip(counts, counts[1:], strict=False))
    norms = [m for m in learner.network.modules() if isinstance(m, _BatchNorm)]
    assert all(norm.training for norm in norms)


def test_rates_decay_from_the_head_to_the_image() -> None:
    learner = _learner(layer_decay=0.5)
    learner.train_step(*_batch())
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates[-1] == pytest.approx(1e-2)  # warm-up is a single step here
    np.testing.assert_allclose(np.divide(rates[1:], rates[:-1]), 2)


def test_the_average_follows_the_formula_and_is_what_judges() -> None:
    learner = _learner(ema=0.9)
    expected = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    for step in range(4):
        learner.train_step(*_batch(step))
        keep = min(0.9, (2 + step) / (11 + step))
        for name, value in learner.network.state_dict().items():
            moves = value.is_floating_point()
            expected[name] = keep * expected[name] + (1 - keep) * value if moves else value.clone()
    assert learner.eval_network is learner.average
    for name, value in learner.eval_network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_mixup_mixes_images_and_labels_by_one_share() -> None:
    images, labels = _batch()
    mixed, targets = mixed_up(images.float(), labels, 0.4, [1, 2, 3])
    again, _ = mixed_up(images.float(), labels, 0.4, [1, 2, 3])
    assert torch.equal(mixed, again)
    rng = np.random.default_rng([1, 2, 3, 2])
    share, partners = rng.beta(0.4, 0.4), rng.permutation(8)
    torch.testing.assert_close(mixed, share * images.float() + (1 - share) * images.float()[partners])
    torch.testing.assert_close(targets, (share * labels + (1 - share) * labels[partners]).float())


def test_smoothed_labels_lower_what_certainty_is_worth() -> None:
    sharp, smooth = _learner(), _learner(label_smoothing=0.2)
    assert sharp.train_step(*_batch())["loss"] != smooth.train_step(*_batch())["loss"]
    images, labels = _batch()
    learner = _learner(label_smoothing=1.0)  # nothing is left of them
    one = learner.train_step(images, labels)["loss"]
    other = _learner(label_smoothing=1.0).train_step(images, 1 - labels)["loss"]
    assert torch.equal(one, other)


def test_a_network_that_gives_no_numbers_is_one_line() -> None:
    learner = _learner()
    with torch.no_grad():
        next(learner.network.head.parameters()).fill_(float("nan"))
    images = np.zeros((4, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="output is not finite at step 0.*smaller --lr"):
        learner.validate(
            images, np.array([0, 0, 1, 1]), Weighed.alike([Kind("real")] * 2 + [Kind("fake")] * 2)
        )


def test_an_option_that_the_model_does_not_know_is_one_line() -> None:
    with pytest.raises(UserError, match="colour"):
        _learner(options={"colour": 1})


def test_a_contrastive_loss_adds_a_tenth_of_the_features_own() -> None:
    images, labels = _batch()
    plain, contrastive = (
        float(_learner(loss=loss).train_step(images, labels)["loss"]) for loss in ("bce", "contrastive")
    )
    features = _learner().network.train().features(images.permute(0, 3, 1, 2).float() / 255)
    assert contrastive - plain == pytest.approx(
        0.1 * supervised_contrastive(features, labels).item(), rel=1e-3
    )
    with pytest.raises(UserError, match="no loss 'triplet'"):
        _learner(loss="triplet")
    with pytest.raises(UserError, match="no class to contrast"):
        _learner(loss="contrastive", mixup=0.2)
