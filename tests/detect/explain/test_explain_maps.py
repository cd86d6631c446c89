import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossfake.detect.explain import pixels, rollout
from crossfake.detect.explain.methods import METHODS, attribute, pick, usable
from crossfake.detect.explain.networks import as_it_is, blurred
from crossfake.errors import MissingDependency, UserError

SIZE = 16
CAMS = ("gradcam", "gradcam++", "hirescam")


class Linear(nn.Module):
    """One weight per pixel and colour; no features, no spatial map."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weight).sum((1, 2, 3)) - 1


class Averaged(nn.Module):
    """Convolution, in-place ReLU, average, linear head: where CAM, Grad-CAM and HiResCAM agree."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cam_layer = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, stride=2), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 1)

    def features(self, images: Tensor) -> Tensor:
        maps: Tensor = self.cam_layer(images)
        return maps.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).squeeze(1)


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).squeeze(1)


def vit(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(2)
    settings = {
        "img_size": SIZE,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 3,
        "num_heads": 2,
        "num_classes": 1,
    }
    network = VisionTransformer(**settings | options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Wrapped(network).eval()


def images(count: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def as_batch(pixels_: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels_).permute(0, 3, 1, 2).float() / 255


def test_integrated_gradients_of_a_linear_network_are_weight_times_input() -> None:
    network, batch = Linear(), as_batch(images())
    expected = (batch * network.weight.detach()).sum(1).numpy()
    found = attribute(network, images(), "integrated-gradients")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with as_it_is(network):
        error = pixels.path_error(network, batch, torch.from_numpy(found))
    assert error.abs().max() < 1e-3


def test_occlusion_of_a_linear_network_is_what_blurring_a_square_takes_away() -> None:
    network, batch = Linear(), as_batch(images(2))
    lost = ((batch - blurred(batch)) * network.weight.detach()).sum(1)
    found = attribute(network, images(2), "occlusion")
    window, stride = 2, 1
    sums, counts = torch.zeros(2, SIZE, SIZE), torch.zeros(SIZE, SIZE)
    for top in range(0, SIZE - window + 1, stride):
        for left in range(0, SIZE - window + 1, stride):
            square = (slice(top, top + window), slice(left, left + window))
            sums[:, *square] += lost[:, *square].sum((1, 2))[:, None, None]
            counts[square] += 1
    np.testing.assert_allclose(found, (sums / counts).numpy(), atol=1e-4)


def test_blurred_keeps_flat_images_and_takes_detail_away() -> None:
    flat = torch.full((1, 3, SIZE, SIZE), 0.3)
    torch.testing.assert_close(blurred(flat), flat)
    batch = as_batch(images())
    assert blurred(batch).std() < 0.4 * batch.std()


@pytest.mark.parametrize("name", ["gradcam", "hirescam"])
def test_cam_before_an_averaged_linear_head_is_the_class_activation_map(name: str) -> None:
    network = Averaged()
    with torch.no_grad():
        features = network.cam_layer(as_batch(images()))
        cam = torch.einsum("bchw,c->bhw", features, network.head.weight[0]) / features[0, 0].numel()
    expected = nn.functional.interpolate(cam[:, None], (SIZE, SIZE), mode="bilinear")[:, 0]
    np.testing.assert_allclose(attribute(network, images(), name), expected.numpy(), atol=1e-6)


def test_gradcam_plus_plus_is_equation_19() -> None:
    network = Averaged()
    with torch.no_grad():
        features = network.cam_layer(as_batch(images())).double()
    gradient = (
        network.head.weight[0].detach().double().view(1, -1, 1, 1).expand_as(features)
        / features[0, 0].numel()
    )
    total = features.sum((2, 3), keepdim=True)
    alpha = gradient**2 / (2 * gradient**2 + total * gradient**3 + 1e-6)
    weights = (alpha * gradient.clamp(min=0)).sum((2, 3), keepdim=True)
    cam = nn.functional.interpolate((weights * features).sum(1, keepdim=True), (SIZE, SIZE), mode="bilinear")[
        :, 0
    ]
    found = attribute(network, images(), "gradcam++")
    assert found.min() >= 0
    np.testing.assert_allclose(found, cam.clamp(min=0).numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_rollout_is_the_product_of_attention_and_residual(pool: str) -> None:
    network = vit(global_pool=pool)
    tokens = network.network
    with torch.no_grad():
        x = tokens.norm_pre(tokens._pos_embed(tokens.patch_embed(as_batch(images()))))
        flow = torch.eye(17).expand(3, 17, 17)
        for block in tokens.blocks:
            attention = block.attn
            qkv = attention.qkv(block.norm1(x)).reshape(3, 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
            weights = (qkv[0] @ qkv[1].transpose(-2, -1) / 8**0.5).softmax(-1).mean(1)
            flow = (0.5 * weights + 0.5 * torch.eye(17)) @ flow
            x = block(x)
    torch.testing.assert_close(flow.sum(-1), torch.ones(3, 17))
    row = (flow[:, 0] if pool == "token" else flow[:, 1:].mean(1))[:, 1:]
    grid = row.reshape(3, 1, 4, 4)
    expected = nn.functional.interpolate(grid, (SIZE, SIZE), mode="bilinear")[:, 0]
    fused = [block.attn.fused_attn for block in tokens.blocks]
    found = attribute(network, images(), "rollout")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert [block.attn.fused_attn for block in tokens.blocks] == fused
    assert not any(block.attn.attn_drop._forward_hooks for block in tokens.blocks)


def test_windowed_attention_is_no_plain_transformer() -> None:
    import timm

    swin = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        depths=(1, 1),
        embed_dim=24,
        num_heads=(1, 2),
    )
    assert rollout.transformer(swin) is None and rollout.transformer(vit()) is not None
    assert rollout.transformer(nn.ModuleList([vit(), vit()])) is None


def test_auto_takes_what_suits_the_network() -> None:
    class NoGradient(Linear):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)

    assert pick(Averaged(), SIZE) == "gradcam"
    assert pick(vit(), SIZE) == "rollout"
    assert pick(Linear(), SIZE) == "integrated-gradients"
    assert pick(NoGradient(), SIZE) == "occlusion"
    assert usable(NoGradient(), SIZE) == ["occlusion", "spectrum"]


def test_a_method_that_does_not_work_says_which_do() -> None:
    for name in (*CAMS, "rollout"):
        with pytest.raises(
            UserError, match="choose one of integrated-gradients, occlusion, spectrum"
        ) as caught:
            attribute(Linear(), images(), name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(UserError, match="did you mean 'gradcam'"):
        attribute(Averaged(), images(), "gradcan")
    with pytest.raises(UserError, match="a picture, not a map"):
        attribute(Averaged(), images(), "spectrum")


def test_a_layer_of_tokens_is_no_spatial_map() -> None:
    network = vit()
    network.cam_layer = network.network.blocks  # type: ignore[assignment]
    assert not set(CAMS) & set(usable(network, SIZE))


@pytest.mark.parametrize(
    ("module", "name", "package"),
    [("pytorch_grad_cam", "gradcam", "grad-cam"), ("captum.attr", "occlusion", "captum")],
)
def test_a_missing_package_is_named(
    module: str, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"{package}.*\.\[explain\]"):
        attribute(Averaged(), images(), name)


def test_every_map_leaves_the_network_as_it_was() -> None:
    network = Averaged().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name in usable(network, SIZE, maps_only=True):
        maps = attribute(network, images(18), name)  # more than one batch
        assert maps.shape == (18, SIZE, SIZE) and maps.dtype == np.float32 and np.isfinite(maps).all()
        np.testing.assert_allclose(attribute(network, images(18)[17:], name)[0], maps[17], atol=1e-6)
    assert network.training and network.cam_layer[1].inplace and not network.cam_layer._forward_hooks
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name])
    assert attribute(network, images(0), "gradcam").shape == (0, SIZE, SIZE)


def test_the_registry_holds_the_named_methods() -> None:
    assert set(METHODS.names()) == {
        *CAMS,
        "integrated-gradients",
        "occlusion",
        "rollout",
        "spectrum",
        "prototypes",
    }
