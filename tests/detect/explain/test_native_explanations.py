"""Explanations of detectors of native pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from crossfake.datasets import blending
from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.commands.explain import explain as command
from crossfake.detect.explain.checks import check
from crossfake.detect.explain.prototypes import Prototypes
from crossfake.detect.explain.rollout import rollout
from crossfake.detect.explain.spectrum import Spectra
from crossfake.detect.explain.windows import maps_of, middle
from crossfake.detect.view import ALIGNED, View
from crossfake.errors import UserError

VIEW = View("native", 16)


class Brightness(nn.Module):
    """Its logit is the sum of all pixels, so occlusion shows what blurring darkens, and gradients are all one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.scale).sum((1, 2, 3))


@pytest.mark.parametrize("shape", [(16, 16), (17, 40), (60, 23), (200, 130)])
def test_the_map_covers_the_whole_image(shape: tuple[int, int]) -> None:
    """Integrated gradients of a sum are the pixels themselves: however windows overlap, their mean is that."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = maps_of(Brightness(), VIEW, [image], "integrated-gradients")
    np.testing.assert_allclose(found, image.sum(2) / 255, atol=1e-4)


def test_a_picture_of_any_size_takes_a_bounded_number_of_windows() -> None:
    image = np.full((400, 16, 3), 255, np.uint8)
    (found,) = maps_of(Brightness(), VIEW, [image], "integrated-gradients")
    assert (found > 0).sum() == 17 * 16 * 16 and np.allclose(found[found > 0], 3, atol=1e-4)


def test_maps_of_windows_are_averaged_where_they_overlap() -> None:
    image = np.random.default_rng(1).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    (found,) = maps_of(Brightness(), VIEW, [image], "occlusion")
    parts = [maps_of(Brightness(), VIEW, [image[top : top + 16]], "occlusion")[0] for top in (0, 4, 8)]
    np.testing.assert_allclose(found[:4], parts[0][:4], atol=1e-4)
    np.testing.assert_allclose(found[12], (parts[0][12] + parts[1][8] + parts[2][4]) / 3, atol=1e-4)


def test_an_aligned_view_is_explained_as_before_and_a_small_image_is_one_line() -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    assert [chart.shape for chart in maps_of(Brightness(), ALIGNED, list(images))] == [(16, 16)] * 2
    assert maps_of(Brightness(), ALIGNED, []) == []
    assert (middle(ALIGNED, images[0]) == images[0]).all()
    with pytest.raises(UserError, match="smaller than the window of 16"):
        maps_of(Brightness(), VIEW, [images[0][:12]])


def test_rollout_of_whole_patches_lies_in_the_middle() -> None:
    from crossfake.detect.models import create_model

    options = {"tower": "vit_tiny_patch16_224", "size": 40, "pixels": "native"}
    torch.manual_seed(0)
    network = create_model("clip_probe", pretrained=False, options=options).eval()
    found = rollout(network, torch.rand(2, 3, 40, 40))
    assert found.shape == (2, 40, 40) and (found >= 0).all()
    assert torch.equal(found[:, :4], found[:, 4:5].expand(-1, 4, -1))  # the rim of 4 is not seen
    assert torch.equal(found[:, :, 36:], found[:, :, 35:36].expand(-1, -1, 4))


@pytest.mark.parametrize("method", ["auto", "spectrum", "prototypes"])
def test_photos_of_any_size_are_explained(
    method: str, native_run: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    image = ShardSet(native[1]).read(50)
    Image.fromarray(image).save(tmp_path / "x.png")
    Image.fromarray(image[:12]).save(tmp_path / "small.png")
    out = tmp_path / "out"
    words = [
        str(tmp_path),
        "--bundle",
        str(native_run),
        "--method",
        method,
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    small, one = json.loads((out / "explanations.json").read_text())["explained"]
    assert small["reason"] == "smaller than 16 pixels" and small["score"] is None
    assert one["verdict"] == "no reliable answer" and (out / one["picture"]).is_file()
    if method == "auto":
        assert 0 <= one["figures"]["at"][0] < image.shape[1] and 0 <= one["figures"]["at"][1] < image.shape[0]


def test_references_are_of_windows(native_run: Path, native: tuple[Path, Path]) -> None:
    detector, sets = bundle.load(native_run, "cpu"), [ShardSet(folder) for folder in native]
    spectra = Spectra.of(detector, sets)
    assert spectra.mean.shape == (16, 16) and spectra.count == 36
    found = spectra.explain(middle(detector.view, sets[1].read(50)))
    assert found["spectrum"].shape == (16, 16)
    prototypes = Prototypes.of(detector, sets)
    assert len(prototypes.images) == len(prototypes.labels) == 72 and prototypes.images[0].shape[0] == 96
    row = int(sets[1].select(split="train")[3])
    assert prototypes.explain(sets[1].read(row), 1)["similarity"][0] == pytest.approx(1, abs=1e-5)


def test_the_check_follows_the_view(
    native_run: Path, native: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blending, "find_weights", lambda name, file=None: str(file or name))
    monkeypatch.setattr(
        blending, "landmarks", lambda image, model: blending.aligned_face(min(image.shape[:2]))
    )
    detector, sets = bundle.load(native_run, "cpu"), [ShardSet(folder) for folder in native]
    found = check(detector, sets, "hirescam", images=4)
    assert found["randomisation"][-1]["share"] == 1
    for part in found["pointing"].values():
        assert part["hit"]["n"] == 4 and 0 < part["chance"]["mean"] < 1
    assert "swapped" in found["pointing"] and found["deletion"] is not None
