from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from crossfake.cli import main
from crossfake.datasets.firewall import count_overlap, seen_by_makers
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.errors import UserError
from crossfake.synth.families.matching import match_spectrum
from crossfake.synth.families.reconstruct import Reconstructor, Taesd
from crossfake.synth.sampling.generation import generate
from crossfake.synth.settings import GenerateSettings

SHAPES = ((40, 32), (33, 47), (24, 24))


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the published files."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    network = Taesd(4, pool=False)
    for part in ("encoder", "decoder"):
        weights = {name: tensor.half() for name, tensor in getattr(network, part).state_dict().items()}
        save_file(weights, folder / f"{part}.safetensors")
    return folder


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine reals and a fake, of three shapes, six to train on, one to validate on and two to test on."""
    folder = tmp_path_factory.mktemp("natives")
    rng = np.random.default_rng(0)
    with ShardWriter(folder, None, attributes={"crop": {"policy": "none", "pixels": "native"}}) as writer:
        for number in range(10):
            image = rng.integers(0, 256, (*SHAPES[number % 3], 3), dtype=np.uint8)
            split = "train" if number < 6 else "val" if number == 6 else "test"
            label = int(number == 9)
            writer.append(image, Row(label, "x", split=split, group=f"g{number}", origin=f"{number}.png"))
    return folder


def _psnr(one: Any, other: Any) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def test_every_real_comes_once_with_its_shape_split_group_and_parent(
    taesd: Path, natives: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "family": "reconstruct",
        "model": taesd,
        "photos": natives,
        "precision": "fp32",
    }
    out = generate(GenerateSettings(out=tmp_path / "all", **options))
    photos, made = ShardSet(natives), ShardSet(out)
    assert made.native and np.array_equal(made.shapes, photos.shapes[:9])
    for name in ("split", "group"):
        assert made.columns[name].tolist() == photos.columns[name][:9].tolist()
    assert made.columns["parent"].tolist() == photos.ids()[:9].tolist() == [f"x/{k}.png" for k in range(9)]
    assert set(made.columns["label"]) == {1} and made.attributes["crop"]["pixels"] == "native"
    (name,) = set(made.columns["generator"])
    assert name.startswith("reconstruct:") and len(name) == 20
    seen = seen_by_makers(made)
    assert seen.by_name == (f"{name} ({taesd.name})",)
    assert count_overlap(seen, photos, np.arange(9)) == (7, 0)  # those to test on were only tested with
    assert count_overlap(seen.only("trained on"), photos, np.arange(9)) == (6, 0)
    alone = generate(GenerateSettings(2, out=tmp_path / "test", split="test", **options))
    assert np.array_equal(ShardSet(alone).read(1), made.read(8)) and len(ShardSet(alone)) == 2
    assert ShardSet(alone).columns["parent"].tolist() == ["x/7.png", "x/8.png"]


def test_the_command_makes_all_by_default(taesd: Path, natives: Path, tmp_path: Path) -> None:
    line = ["synth", "generate", "--family", "reconstruct", "--photos", str(natives), "--out", "made"]
    result = CliRunner().invoke(main, [*line, "--model", str(taesd)])
    assert result.exit_code == 0 and "9 fakes of reconstruct:" in result.output, result.output
    assert len(ShardSet("made")) == 9
    for model, message in (
        ("nowhere", "nowhere is not there"),
        (str(natives), "holds no autoencoder"),
        ("someone/something", "cannot be reached"),
    ):
        result = CliRunner().invoke(main, [*line, "--model", model])
        assert result.exit_code == 2 and message in result.output, result.output
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 2 and "reconstruct needs an autoencoder" in result.output
    result = CliRunner().invoke(main, ["synth", "generate", "--model", "nowhere", "--n", "3"])
    assert result.exit_code == 2 and "nowhere holds no generator" in result.output
    result = CliRunner().invoke(main, ["synth", "generate"])
    assert result.exit_code == 2 and "how many images to make" in result.output


def test_what_is_no_autoencoder_is_one_line(taesd: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half/encoder.safetensors").write_bytes((taesd / "encoder.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"holds no files \*decoder.safetensors"):
        Reconstructor(str(tmp_path / "half"))
    (tmp_path / "half/decoder.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="decoder.safetensors is damaged"):
        Reconstructor(str(tmp_path / "half"))
    save_file({"1.weight": torch.zeros(3)}, tmp_path / "half/decoder.safetensors")
    with pytest.raises(UserError, match="no autoencoder of the TAESD family"):
        Reconstructor(str(tmp_path / "half"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UserError, match="is UNet2DModel: name one of AutoencoderKL"):
        Reconstructor(str(tmp_path / "other"))


def test_photos_without_splits_are_refused_where_all_are_taken(taesd: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "photos", 16) as writer:
        writer.append(np.zeros((16, 16, 3), np.uint8), Row(0, "x"))
    settings = GenerateSettings(
        out=tmp_path / "out", family="reconstruct", model=taesd, photos=tmp_path / "photos"
    )
    with pytest.raises(UserError, match="is not split: run 'crossfake data split' first"):
        generate(settings)


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny", "VQModel"])
def test_autoencoders_of_diffusers(kind: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    options: dict[str, Any] = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    if kind == "AutoencoderTiny":
        options = {
            "encoder_block_out_channels": (32, 32),
            "decoder_block_out_channels": (32, 32),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        }
    network = getattr(diffusers, kind)(**options).eval()
    network.save_pretrained(tmp_path / "vae")
    photo = np.random.default_rng(0).integers(0, 256, (17, 22, 3), dtype=np.uint8)
    for folder in (tmp_path / "vae", tmp_path):  # alone, and in a pipeline's folder
        coder = Reconstructor(str(folder)).eval()
        assert coder.coder.factor == 2
        with torch.inference_mode():
            (made,) = coder.edit([photo], [], torch.zeros(1, 0), torch.float32)
            image = torch.from_numpy(np.pad(photo, ((0, 1), (0, 0), (0, 0)), "symmetric"))
            wanted = network(image.permute(2, 0, 1)[None].float() / 127.5 - 1).sample[0, :, :17]
        assert made.shape == photo.shape
        wanted = ((wanted.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
        if kind != "AutoencoderTiny":  # whose own forward rounds the latents to bytes
            assert np.abs(made.astype(int) - wanted.numpy()).max() <= 1


def test_the_published_tiny_autoencoder_keeps_photos(real_data: Path, real_weights: Path) -> None:
    from crossfake.datasets.decode import decode_image

    coder = Reconstructor(str(real_weights / "taef2")).eval()
    files = sorted((real_data / "all-age-faces").rglob("*.jpg"))[::1500][:4]
    photos = [decode_image(file.read_bytes())[40:217, 60:236] for file in files]
    with torch.inference_mode():
        exact = coder.edit(photos, [], torch.zeros(4, 0), torch.float32)
        quick = coder.edit(photos, [], torch.zeros(4, 0), torch.bfloat16)
    assert [image.shape for image in exact] == [(177, 176, 3)] * 4
    assert np.mean([_psnr(a, b) for a, b in zip(exact, photos, strict=True)]) > 32
    assert min(_psnr(a, b) for a, b in zip(exact, photos, strict=True)) > 29
    assert min(_psnr(a, b) for a, b in zip(exact, quick, strict=True)) > 42


def test_fakes_are_as_sharp_as_their_photos_where_that_is_asked_for(
    taesd: Path, natives: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "family": "reconstruct",
        "model": taesd,
        "photos": natives,
        "precision": "fp32",
    }
    plain = ShardSet(generate(GenerateSettings(out=tmp_path / "plain", **options)))
    matched = ShardSet(generate(GenerateSettings(out=tmp_path / "matched", match_spectrum=True, **options)))
    assert matched.attributes["spectrum"] == "photo" and "spectrum" not in plain.attributes
    photos = ShardSet(natives)
    for number in range(3):
        expected = match_spectrum(plain.read(number), photos.read(number))
        assert np.array_equal(matched.read(number), expected)
    with pytest.raises(UserError, match="another model or of other settings"):
        generate(GenerateSettings(out=tmp_path / "plain", match_spectrum=True, **options))
    with pytest.raises(UserError, match="matched to photos"):
        GenerateSettings(4, match_spectrum=True)
