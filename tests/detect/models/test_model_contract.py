"""What every model has to do, at a tiny size."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossfake.detect.models import MODELS, DetectorNetwork, create_model

SIZE = 32
TOWER = {"tower": "test_vit", "tower_size": 32}
MEMBERS = [
    {"model": "cnn", "options": {}, "temperature": 2.0},
    {"model": "meso", "options": {"size": SIZE}, "temperature": 0.5},
]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in MODELS.names() if name not in ("clip_probe", "ensemble")},
    "frequency-cnn": ("frequency", {"head": "cnn"}),
    "clip_probe": ("clip_probe", TOWER),
    "clip_probe-layernorm": ("clip_probe", {**TOWER, "tune": "layernorm"}),
    "clip_probe-nearest": ("clip_probe", {**TOWER, "head": "nearest"}),
    "clip_probe-positive": ("clip_probe", {**TOWER, "head": "positive"}),
    "clip_probe-lora": ("clip_probe", {**TOWER, "tune": "lora", "rank": 2}),
    "clip_probe-effort": ("clip_probe", {**TOWER, "tune": "effort"}),
    "clip_probe-native": ("clip_probe", {"tower": "test_vit", "pixels": "native", "tune": "layernorm"}),
    "resnet-positive": ("test_resnet", {"head": "positive"}),
    "ensemble": ("ensemble", {"members": MEMBERS, "weights": [0.7, -0.2], "bias": 0.1}),
    **{
        name: (name, {})
        for name in (
            "test_resnet",
            "test_efficientnet",
            "test_convnext",
            "test_vit",
            "test_nfnet",
            "test_mambaout",
        )
    },
}


def _make(case: str) -> DetectorNetwork:
    torch.manual_seed(0)
    name, options = CASES[case]
    model = create_model(name, options={"size": SIZE, **options})
    if case == "clip_probe-nearest":
        features = model.eval().features(_images(6))
        model.fit_bank(features, torch.tensor([0, 1, 0, 1, 1, 1]))  # type: ignore[operator]
    return model


def _images(count: int, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("case", CASES)
def test_logits_features_and_head(case: str) -> None:
    model, images = _make(case).eval(), _images(3)
    logits, features = model(images), model.features(images)
    assert logits.shape == (3,) and logits.dtype == torch.float32 and logits.isfinite().all()
    assert features.ndim == 2 and len(features) == 3 and features.is_floating_point()
    torch.testing.assert_close(model.head(features).squeeze(1), logits)
    assert torch.equal(model(images), logits)  # nothing random is left in evaluation
    torch.testing.assert_close(model(images[1:2]), logits[1:2], atol=1e-4, rtol=1e-4)  # no look at neighbours


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_all_that_is_trained_and_stages_hold_it_once(case: str) -> None:
    model = _make(case).train()
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    staged = [id(p) for stage in model.stages() for p in stage]
    assert len(staged) == len(set(staged)) and set(staged) == trained
    assert all(model.stages())
    if not trained:
        assert case in ("ensemble", "clip_probe-nearest")
        return
    assert {id(p) for p in model.head.parameters()} == {id(p) for p in model.stages()[-1]}
    images = _images(4)
    model(images).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("case", CASES)
def test_stages_run_from_the_image_to_the_head(case: str) -> None:
    model = _make(case)
    order = {id(p): number for number, p in enumerate(model.parameters())}
    stages = [[order[id(p)] for p in stage] for stage in model.stages()]
    if case == "test_vit":  # its position embedding and class token come before the patches
        return
    middles = [sum(stage) / len(stage) for stage in stages]
    assert middles == sorted(middles)


@pytest.mark.parametrize("case", CASES)
def test_the_cam_layer_gives_a_map_of_the_picture(case: str) -> None:
    model = _make(case).eval()
    layer = model.cam_layer
    if layer is None:
        assert CASES[case][0] in ("frequency", "clip_probe", "ensemble", "test_vit", "test_mambaout")
        return
    seen: list[Tensor] = []
    with layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output)):
        model(_images(2).requires_grad_())
    assert seen[0].ndim == 4 and len(seen[0]) == 2 and seen[0].shape[1] > max(seen[0].shape[2:])
    assert seen[0].requires_grad


@pytest.mark.parametrize("case", CASES)
def test_it_is_built_again_from_its_name_and_options(case: str) -> None:
    model, images = _make(case), _images(2)
    if case.startswith("frequency"):
        model.train()(_images(4))  # its statistics are part of the state
    card = json.loads(json.dumps({"model": model.name, "options": model.options}))
    again = create_model(card["model"], options=card["options"])
    again.load_state_dict(model.state_dict())
    assert again.options == model.options and again.name == model.name == CASES[case][0]
    assert torch.equal(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_autocast(case: str) -> None:
    model, images = _make(case).eval(), _images(2)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    assert (logits - model(images)).abs().max() < 0.25
    if any(p.requires_grad for p in model.parameters()):
        with torch.autocast("cpu", torch.bfloat16):
            model.train()(_images(4)).sum().backward()


@pytest.mark.parametrize("name", ["cnn", "meso", "test_resnet"])
def test_logits_are_finer_than_bfloat16(name: str) -> None:
    """Untrained logits lie close together: in bfloat16 most of them would be ties, and so a ranking's figures noise."""
    model = _make(name).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        logits = model(_images(64))
    assert logits.unique().numel() > logits.bfloat16().unique().numel()


@pytest.mark.parametrize(
    "case",
    [
        "cnn",
        "npr",
        "noise",
        "squeezenet",
        "clip_probe",
        "clip_probe-native",
        "test_resnet",
        "test_efficientnet",
    ],
)
@pytest.mark.parametrize("size", [24, 33])
def test_any_size_goes(case: str, size: int) -> None:
    assert _make(case).eval()(_images(2, size)).shape == (2,)


@pytest.mark.parametrize("name", ["frequency", "meso", "npr", "noise", "cnn"])
def test_the_smallest_images(name: str) -> None:
    model = create_model(name, options={"size": 16})
    assert model.eval()(_images(2, 16)).shape == (2,)


@pytest.mark.parametrize(
    "case", ["cnn", "noise", "frequency", "frequency-cnn", "test_resnet", "resnet-positive"]
)
def test_it_learns_a_grid(case: str) -> None:
    """A few steps tell a grid on every second pixel from none; the grid is what up-sampling leaves."""
    model = _make(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    labels = torch.tensor([0.0, 1.0] * 8)
    for step in range(10):
        images = _images(16 + step)[:16] * 0.2 + 0.4
        images[1::2, :, ::2, ::2] += 0.2
        loss = nn.functional.binary_cross_entropy_with_logits(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
