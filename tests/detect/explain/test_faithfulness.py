from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.explain import faithfulness
from crossfake.detect.explain.methods import attribute

SIZE = 16
PATCH = (slice(8, 12), slice(2, 6))


class Patch(nn.Module):
    """Looks at one patch only, and finds detail in it fake."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = torch.zeros(SIZE, SIZE)
        self.inside[PATCH] = 1
        edges = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
        self.cam_layer = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.cam_layer.weight.data = torch.stack([edges, -edges])[:, None].repeat(1, 3, 1, 1)
        self.head = nn.Linear(2, 1)
        self.head.weight.data = torch.tensor([[3.0, 2.0]])
        self.head.bias.data = torch.tensor([-3.0])

    def features(self, images: Tensor) -> Tensor:
        return self.cam_layer(images * self.inside).square().mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).squeeze(1)


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def masks(count: int = 6) -> np.ndarray:
    mask = np.zeros((count, SIZE, SIZE), np.float32)
    mask[:, *PATCH] = 1
    return mask


@pytest.mark.parametrize("name", ["hirescam", "integrated-gradients", "occlusion"])
def test_a_network_that_looks_at_one_patch(name: str) -> None:
    network, rng = Patch(), np.random.default_rng(0)
    maps = attribute(network, images(), name)
    hits, share, area = faithfulness.pointing(maps, masks())
    assert hits.mean() == 1 and share.min() > 0.6 and np.allclose(area, 1 / 16)
    ours = faithfulness.deletion_insertion(network, images(), maps, rng)
    control = faithfulness.deletion_insertion(network, images(), faithfulness.random_maps(maps, rng), rng)
    deletion, insertion = (
        faithfulness.area(a) - faithfulness.area(b) for a, b in zip(ours, control, strict=True)
    )
    assert deletion.mean() < -0.1 and insertion.mean() > 0.05


def test_gradcam_peaks_in_the_patch_that_counts() -> None:
    class Relu(Patch):
        def __init__(self) -> None:
            super().__init__()
            self.cam_layer = nn.Conv2d(3, 2, 1, bias=False)
            self.cam_layer.weight.data.fill_(1.0)

        def features(self, images: Tensor) -> Tensor:
            return self.cam_layer(images * self.inside).relu().mean((2, 3))

    for name in ("gradcam", "gradcam++"):
        hits, share, _ = faithfulness.pointing(attribute(Relu(), images(), name), masks())
        assert hits.mean() == 1 and np.allclose(share, 1)


def test_deletion_and_insertion_go_from_the_image_to_its_blur_and_back() -> None:
    network, rng = Patch(), np.random.default_rng(0)
    batch = torch.from_numpy(images(2)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        sharp = torch.sigmoid(network(batch)).numpy()
        vague = torch.sigmoid(network(faithfulness.blurred(batch))).numpy()
    maps = rng.random((2, SIZE, SIZE)).astype(np.float32)
    deleted, inserted = faithfulness.deletion_insertion(network, images(2), maps, rng, steps=8)
    assert deleted.shape == inserted.shape == (2, 9)
    np.testing.assert_allclose(deleted[:, [0, -1]], np.stack([sharp, vague], 1), atol=1e-6)
    np.testing.assert_allclose(inserted[:, [0, -1]], np.stack([vague, sharp], 1), atol=1e-6)
    # opposite maps: what one deletes first the other inserts last
    other = faithfulness.deletion_insertion(network, images(2), -maps, rng, steps=8)
    np.testing.assert_allclose(other[1][:, ::-1], deleted, atol=1e-6)


def test_area() -> None:
    np.testing.assert_allclose(
        faithfulness.area(np.array([[1.0, 1, 1], [0, 0.5, 1], [1, 0, 0]])), [1, 0.5, 0.25]
    )


def test_random_maps_have_the_spectrum_of_the_map() -> None:
    maps = np.random.default_rng(0).random((4, SIZE, SIZE)).astype(np.float32)
    control = faithfulness.random_maps(maps, np.random.default_rng(1))
    assert control.dtype == np.float32
    inner = np.abs(np.fft.fft2(maps))[:, 1:8, 1:8]
    np.testing.assert_allclose(np.abs(np.fft.fft2(control))[:, 1:8, 1:8], inner, rtol=1e-3)
    assert np.abs(faithfulness.rank_correlation(maps, control)).max() < 0.4


def test_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (2, 3, 8, 8)).astype(np.float32)
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(faithfulness.rank_correlation(a, b), expected, atol=1e-12)
    assert faithfulness.rank_correlation(a, np.zeros_like(a)).tolist() == [0, 0, 0]


def test_similarity_of_a_map_with_itself_is_one() -> None:
    maps = np.random.default_rng(0).random((3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_allclose(faithfulness.similarity(maps, 5 * maps + 2), 1, atol=1e-3)
    assert faithfulness.similarity(maps, maps[::-1, ::-1].copy()).max() < 0.9


def test_pointing_counts() -> None:
    maps = np.zeros((4, 4, 4), np.float32)
    maps[0, 0, 0], maps[0, 3, 3] = 3, 1  # hit, 3/4 of it inside
    maps[1, 3, 3], maps[1, 0, 0] = 2, -5  # miss, nothing positive inside
    maps[2] = 1  # flat: chance
    mask = np.zeros((4, 4, 4))
    mask[:, :2, :2] = 0.9
    hits, share, area = faithfulness.pointing(maps, mask)
    assert hits[:3].tolist() == [1, 0, 0.25] and hits[3] == 0.25
    assert share[:3].tolist() == [0.75, 0, 0.25] and np.isnan(share[3])  # nothing positive at all
    assert area.tolist() == [0.25] * 4


def test_estimate_resamples_groups() -> None:
    rng = np.random.default_rng(0)
    group_mean = rng.normal(size=40)
    values, groups = np.repeat(group_mean, 10), np.repeat(np.arange(40), 10)
    found = faithfulness.estimate(values, groups)
    assert found["n"] == 400 and found["groups"] == 40
    assert found["mean"] == pytest.approx(group_mean.mean())
    width = 2 * 1.96 * group_mean.std() / 40**0.5
    assert found["high"] - found["low"] == pytest.approx(width, rel=0.15)
    assert faithfulness.estimate(np.array([np.nan, 1.0]), np.array(["a", "b"]))["n"] == 1
    assert faithfulness.estimate(np.array([np.nan]), np.array(["a"]))["mean"] is None


def test_randomised_goes_from_the_head_to_the_image_and_spares_the_original() -> None:
    class Three(nn.Sequential):
        def stages(self) -> list[list[nn.Parameter]]:
            return [list(layer.parameters()) for layer in self]

    network = Three(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    before = [parameter.clone() for parameter in network.parameters()]
    shares, changed = [], []
    for share, other in faithfulness.randomised(network, np.random.default_rng(0)):
        shares.append(share)
        changed.append([not torch.equal(a, b) for a, b in zip(other.parameters(), before, strict=True)])
        for ours, theirs in zip(other.parameters(), before, strict=True):
            torch.testing.assert_close(ours.flatten().sort().values, theirs.flatten().sort().values)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    assert changed == [[False] * 4 + [True] * 2, [False] * 2 + [True] * 4, [True] * 6]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


def test_frozen_weights_are_shuffled_last() -> None:
    class Probe(nn.Sequential):
        def stages(self) -> list[list[nn.Parameter]]:
            return [list(self[1].parameters())]

    shares = [
        share
        for share, _ in faithfulness.randomised(
            Probe(nn.Linear(6, 6), nn.Linear(6, 1)), np.random.default_rng(0)
        )
    ]
    assert shares == pytest.approx([7 / 49, 1])


@pytest.mark.parametrize("name", ["hirescam", "integrated-gradients"])
def test_randomised_weights_change_the_map_of_a_trained_detector(
    name: str, trained: Path, fake: Path
) -> None:
    network = bundle.load(trained, "cpu").network
    pixels = ShardSet(fake).read_many(range(6))
    stages = list(faithfulness.sanity(network, pixels, name, np.random.default_rng(0)))
    assert stages[-1][0] == 1 and len(stages) <= 6
    assert stages[-1][1].mean() < 0.7 and stages[-1][1].shape == (6,)
    assert all(np.isfinite(s).all() and np.abs(s).max() <= 1.001 for stage in stages for s in stage[1:])


def test_a_map_that_ignores_the_weights_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sanity check is for: an edge detector passes for an explanation, and is found out."""

    def edges(network: nn.Module, pixels: np.ndarray, method: str) -> np.ndarray:
        return np.abs(np.diff(pixels.mean(3), axis=1, prepend=0)).astype(np.float32)

    monkeypatch.setattr(faithfulness, "attribute", edges)
    for _, correlation, ssim in faithfulness.sanity(Patch(), images(), "edges", np.random.default_rng(0)):
        np.testing.assert_allclose(correlation, 1)
        np.testing.assert_allclose(ssim, 1, atol=1e-4)
