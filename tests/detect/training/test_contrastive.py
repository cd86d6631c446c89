import math

import pytest
import torch

from crossfake.detect.training.contrastive import supervised_contrastive


def _by_hand(features: torch.Tensor, labels: list[int]) -> float:
    """Equation 2 of the paper, image by image."""
    unit = [[float(x) / math.hypot(*map(float, row)) for x in row] for row in features]
    losses = []
    for i, own in enumerate(labels):
        exponents = {
            a: sum(x * y for x, y in zip(unit[i], unit[a], strict=True)) / 0.1
            for a in range(len(labels))
            if a != i
        }
        total = math.log(sum(map(math.exp, exponents.values())))
        if positives := [a for a in exponents if labels[a] == own]:
            losses.append(-sum(exponents[p] - total for p in positives) / len(positives))
    return sum(losses) / len(losses)


def test_it_is_the_papers_equation() -> None:
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    for labels in ([0, 1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0, 0]):
        found = supervised_contrastive(features, torch.tensor(labels))
        assert float(found) == pytest.approx(_by_hand(features, labels), rel=1e-5)


def test_classes_apart_cost_less_and_gradients_are_finite() -> None:
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0])
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]], requires_grad=True)
    mixed = apart.detach()[[0, 2, 1, 3]]
    loss = supervised_contrastive(apart, labels)
    assert loss < supervised_contrastive(mixed, labels)
    loss.backward()
    assert apart.grad is not None and apart.grad.isfinite().all()


def test_nothing_to_draw_together_costs_nothing() -> None:
    features = torch.randn(2, 3, requires_grad=True)
    loss = supervised_contrastive(features, torch.tensor([0, 1]))
    loss.backward()
    assert loss == 0 and features.grad is not None and not features.grad.any()


def test_bfloat16_features_are_compared_in_float32() -> None:
    features = torch.randn(6, 4)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        found = supervised_contrastive(features, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, supervised_contrastive(features, labels))
