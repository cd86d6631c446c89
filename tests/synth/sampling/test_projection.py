import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

import crossfake.synth.sampling.perception as perception
from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.synth.cli import synth
from crossfake.synth.sampling.latents import styled, styles_of, synthesise
from crossfake.synth.sampling.models import Model, load_model
from crossfake.synth.sampling.perception import Perception, choose_perception, pixel_features, unit_features
from crossfake.synth.sampling.projected import project_photo, project_set
from crossfake.synth.sampling.projection import _pattern, project
from crossfake.synth.settings import ProjectSettings

PIXELS = Perception("pixels", pixel_features)


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perception, "locate", lambda name: None)


@pytest.fixture
def model(trained: Callable[..., Path]) -> Model:
    return load_model(trained("stylegan2", noise=True), device="cpu", precision="fp32")


def _own(model: Model, seeds: list[int]) -> Images:
    ws, _ = styles_of(model, seeds, 1.0, None)
    return synthesise(model, ws, styled(model).constant_noise())


@pytest.mark.parametrize(("noise", "most"), [(True, 0.15), (False, 0.4)])  # noise is looked for, too
def test_a_picture_of_its_own_is_found(trained: Callable[..., Path], noise: bool, most: float) -> None:
    model = load_model(trained("stylegan2", noise=noise), device="cpu", precision="fp32")
    photos = _own(model, [1, 2])
    in_w = project(model, photos, "w", 80, PIXELS)
    assert in_w.images.shape == photos.shape and in_w.ws.shape == (2, 6, 256)
    assert torch.equal(in_w.ws[:, 0], in_w.ws[:, 5])
    for found, start in zip(in_w.distance, in_w.start, strict=True):
        assert found < most * start
    in_w_plus = project(model, photos, "w+", 80, PIXELS)
    assert not torch.equal(in_w_plus.ws[:, 0], in_w_plus.ws[:, 5])
    for plus, one in zip(in_w_plus.distance, in_w.distance, strict=True):
        assert plus <= one
    again = synthesise(model, in_w_plus.ws, in_w_plus.noise)
    assert np.array_equal(again, in_w_plus.images)


def test_a_photo_does_not_depend_on_the_others(model: Model) -> None:
    photos = _own(model, [1, 2, 3])
    together, alone = project(model, photos, "w+", 15, PIXELS), project(model, photos[1:2], "w+", 15, PIXELS)
    assert np.abs(together.images[1].astype(int) - alone.images[0]).max() <= 3
    assert together.distance[1] == pytest.approx(alone.distance[0], rel=0.02)


def test_16_bits_find_as_well(model: Model, trained: Callable[..., Path]) -> None:
    photos = _own(model, [1, 2])
    half = load_model(trained("stylegan2", noise=True), device="cpu", precision="bf16")
    fine, coarse = (np.mean(project(m, photos, "w", 60, PIXELS).psnr) for m in (model, half))
    assert coarse > fine - 1.5


def test_noise_with_a_pattern_is_dear() -> None:
    noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    picture = noise[..., :8, :8].repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    assert _pattern(picture) > 10 * _pattern(noise)
    assert _pattern(noise.repeat(3, 1, 1, 1)).item() == pytest.approx(3 * _pattern(noise).item(), rel=1e-5)


def test_distances_are_distances() -> None:
    a, b = torch.rand(2, 3, 3, 32, 32).mul(2).sub(1)
    assert PIXELS.distance(a, a).tolist() == [0, 0, 0]
    assert (PIXELS.distance(a, b) > PIXELS.distance(a, a.lerp(b, 0.5))).all()
    maps = [torch.randn(2, 8, 4, 4), torch.randn(2, 4, 2, 2)]
    hand = sum((m / m.norm(dim=1, keepdim=True)).diff(dim=0).square().sum(1).mean() for m in maps) / 2
    found = unit_features(maps)
    assert (found[0] - found[1]).square().sum().item() == pytest.approx(float(hand), rel=1e-4)
    black = torch.zeros(1, 4, 2, 2, requires_grad=True)
    unit_features([black]).sum().backward()
    assert black.grad is not None and black.grad.isfinite().all()


def test_the_best_network_on_disk_is_taken(
    model: Model, random_inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = torch.rand(2, 3, 16, 16).mul(2).sub(1)
    assert "discriminator" in choose_perception(model).name
    copy = tmp_path / "other"
    copy.mkdir()
    for file in ("generator.safetensors", "model.json"):
        (copy / file).write_bytes((model.path / file).read_bytes())
    alone = load_model(copy, device="cpu", precision="fp32")
    assert choose_perception(alone).name == "pixels and their gradients"
    monkeypatch.setattr(perception, "locate", {"inception": random_inception}.get)
    inception = choose_perception(alone)
    assert inception.name.startswith("Inception")
    for kind in (inception, choose_perception(model)):
        moved = photo.clone().requires_grad_()
        distance = kind.distance(moved, photo.flip(0))
        distance.sum().backward()
        assert (distance > 0).all() and moved.grad is not None and moved.grad.isfinite().all()
        assert kind.distance(photo, photo).max() == 0


def test_lpips_as_features_is_lpips(model: Model, tmp_path: Path) -> None:
    import torchvision

    from crossfake.synth.quality.lpips_diversity import Lpips

    torch.manual_seed(0)
    file = tmp_path / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    a, b = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    published = Lpips("squeeze", file, torch.device("cpu"))(a, b)
    chosen = choose_perception(model, "squeeze", file)
    ours = chosen.distance(a / 127.5 - 1, b / 127.5 - 1)
    assert chosen.name == "LPIPS (squeeze)" and torch.allclose(ours, published, rtol=1e-3)
    with pytest.raises(UserError, match="not there"):
        choose_perception(model, "squeeze", tmp_path / "none.pth")


def test_one_photo_on_disk(model: Model, tmp_path: Path) -> None:
    Image.fromarray(_own(model, [7])[0]).save(tmp_path / "me.png")
    out = tmp_path / "out"
    arguments = ["project", str(tmp_path / "me.png"), "--model", str(model.path), "--out", str(out)]
    result = CliRunner().invoke(synth, [*arguments, "--steps", "8", "--precision", "fp32"])
    assert result.exit_code == 0, result.output
    assert "distance: the discriminator's features and pixels" in result.output
    figures = json.loads((out / "projected.json").read_text())
    assert figures["distance"] < figures["distance_of_mean"] and figures["photo"] == "me.png"
    latents = load_file(out / "projected.safetensors")
    noise = [latents[f"noise{k}"][None] for k in range(5)]
    with Image.open(out / "projected.png") as picture:
        both = np.asarray(picture)
    assert np.array_equal(both[:, :16], _own(model, [7])[0])
    assert np.array_equal(both[:, 16:], synthesise(model, latents["ws"][None], noise)[0])
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "wide.png")
    assert project_photo(ProjectSettings(tmp_path / "wide.png", out, model.path, "w", 1))["space"] == "w"


def test_a_set_keeps_groups_and_splits_and_goes_on(
    model: Model, reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "tile", 16)
    whole = ProjectSettings(reals, tmp_path / "whole", model.path, "w", 2, device="cpu", precision="fp32")
    facts = project_set(whole)
    made, photos = ShardSet(whole.out), ShardSet(reals)
    assert facts["images"] == len(made) == 40 and facts["psnr"] > 5
    for name in ("group", "split", "origin"):
        assert np.array_equal(made.columns[name], photos.columns[name])
    assert (made.columns["label"] == 1).all() and (made.columns["seed"] == -1).all()
    assert set(made.columns["generator"]) == {f"{model.name}:projected"}
    assert made.attributes["crop"] == photos.attributes["crop"] and (made.columns["own_split"] == 1).all()

    broken = ProjectSettings(reals, tmp_path / "broken", model.path, "w", 2, device="cpu", precision="fp32")
    calls = []

    def failing(*arguments: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return project(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("crossfake.synth.sampling.projected.project", failing)
    with pytest.raises(KeyboardInterrupt):
        project_set(broken)
    project_set(broken)
    assert len(calls) == 4  # 16, then the one that failed, then 16 and 8
    assert np.array_equal(ShardSet(broken.out).read_many(range(40)), made.read_many(range(40)))
    with pytest.raises(UserError, match="other settings"):
        project_set(ProjectSettings(reals, broken.out, model.path, "w", 3, device="cpu", precision="fp32"))


def test_a_folder_of_photos_is_prepared_first(model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for k, image in enumerate(_own(model, [1, 2, 3])):
        Image.fromarray(image).resize((40, 30)).save(tmp_path / "photos" / f"{k}.png")
    facts = project_set(ProjectSettings(tmp_path / "photos", tmp_path / "out", model.path, "w", 1))
    made, photos = ShardSet(tmp_path / "out"), ShardSet(tmp_path / "out-photos")
    assert facts["images"] == 3 and np.array_equal(made.columns["group"], photos.columns["group"])


def test_what_cannot_be_projected_is_said(
    model: Model, trained: Callable[[str], Path], reals: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="a dcgan, which has no styles"):
        project_set(ProjectSettings(reals, tmp_path / "out", trained("dcgan")))
    with pytest.raises(UserError, match="no space 'z'"):
        project(model, _own(model, [1]), "z")
    with pytest.raises(UserError, match="0 steps"):
        project(model, _own(model, [1]), "w", 0)
    nothing = CliRunner().invoke(synth, ["project", "--model", str(model.path)])
    assert nothing.exit_code == 2 and "name an IMAGE" in nothing.output
    missing = CliRunner().invoke(synth, ["project", str(tmp_path / "x.png"), "--model", str(model.path)])
    assert missing.exit_code == 2 and "is not there" in missing.output
