from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from crossfake.cli import main
from crossfake.datasets.firewall import count_overlap
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.errors import UserError
from crossfake.synth.families.autoencoder import pyramid_distance
from crossfake.synth.families.windows import WindowAutoencoder, WindowLearner
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import load_model, seen_by
from crossfake.synth.settings import GenerateSettings, Upsample
from crossfake.synth.training.runs import make_plan, resumed
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.train import (
    GeneratorTraining,
    train,
)

SMALL: dict[str, Any] = {"family": "autoencoder", "window": 32, "batch": 4, "channels": 512, "device": "cpu"}


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve smooth photos of two shapes, eight to train on."""
    folder = tmp_path_factory.mktemp("natives")
    coarse = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    with ShardWriter(folder, None, attributes={"crop": {"policy": "none", "pixels": "native"}}) as writer:
        for number, image in enumerate(coarse):
            photo = image.repeat(8, axis=0).repeat(8, axis=1)[number % 2 :]
            split = "train" if number < 8 else "val" if number < 10 else "test"
            writer.append(photo, Row(0, "x", split=split, group=f"g{number}", origin=f"{number}.png"))
    return folder


@pytest.mark.parametrize("upsample", get_args(Upsample)[1:])
def test_every_way_of_enlarging_keeps_the_shape_and_learns(
    upsample: str, natives: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(natives, tmp_path, upsample=upsample, lr=2e-3, **SMALL)
    learner = WindowLearner(make_plan(settings, 32), 0, pyramid_distance)
    network: Any = learner.generator
    assert network(torch.zeros(2, 3, 36, 20)).shape == (2, 3, 36, 20)
    real = torch.from_numpy(np.stack([ShardSet(natives).window(k, 2, 3, 32) for k in range(4)])).permute(
        0, 3, 1, 2
    )
    losses = [float(learner.train_step(real)["distance"]) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    last = {name for name, _ in network.decoder[5].named_parameters()}
    assert last == {"conv.weight"}


def test_ways_of_enlarging_differ() -> None:
    made = []
    for upsample in get_args(Upsample)[1:]:
        torch.manual_seed(0)
        made.append(WindowAutoencoder(32, 512, upsample)(torch.linspace(-1, 1, 3072).reshape(1, 3, 32, 32)))
    assert all((a - b).abs().max() > 1e-3 for k, a in enumerate(made) for b in made[:k])


@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_stopped_and_resumed_is_the_same(adversarial: float, natives: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "adversarial": adversarial, "data": natives, "snapshot_kimg": 0.012}
    whole = train(TrainSettings(out=tmp_path / "whole", kimg=0.04, **options))  # five epochs of eight photos
    train(TrainSettings(out=tmp_path / "part", kimg=0.012, **options))
    part = train(resumed(tmp_path / "part", kimg=0.04))
    file = Path("model/generator.safetensors")
    assert (whole / file).read_bytes() == (part / file).read_bytes()
    assert (whole / "samples/000000.040.png").exists()
    with pytest.raises(UserError, match="upsample"):
        resumed(part, upsample="bilinear")


def test_photos_of_any_shape_come_back(natives: Path, tmp_path: Path) -> None:
    run = train(TrainSettings(natives, tmp_path / "run", kimg=0.008, upsample="pixelshuffle", **SMALL))
    photos, model = ShardSet(natives), load_model(run, device="cpu")
    made = ShardSet(generate(GenerateSettings(model=run, out=tmp_path / "out", photos=natives, device="cpu")))
    assert (
        np.array_equal(made.shapes, photos.shapes)
        and made.columns["parent"].tolist() == photos.ids().tolist()
    )
    assert made.columns["split"].tolist() == photos.columns["split"].tolist()
    (alone,) = model.edit([photos.read(11)], [], torch.zeros(0))
    assert np.array_equal(alone, made.read(11))
    assert count_overlap(seen_by(run), photos, np.arange(12)) == (8, 0)
    with pytest.raises(UserError, match="makes fakes of photos"):
        generate(GenerateSettings(4, run, tmp_path / "none"))


def test_it_learns_from_several_folders(natives: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "more", None) as writer:
        for number in range(3):
            writer.append(
                np.full((33, 40, 3), number, np.uint8), Row(0, "y", split="train", group=f"y{number}")
            )
    line = ["synth", "train", "--data", str(natives), str(tmp_path / "more"), "--family", "autoencoder"]
    line += ["--window", "32", "--kimg", "0.008", "--batch", "4", "--channels", "512", "--out", "run"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0 and "on 11 images" in result.output, result.output
    assert "--photos SHARDS" in result.output
    assert len(seen_by("run").blocks) == 2
    assert len(GeneratorTraining(resumed(Path("run"))).data.sets) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "dcgan", "window": 32}, "dcgan does not learn from windows"),
        ({"window": 34}, "a window of 34 has no quarter: give a multiple of 4"),
        ({"window": 0, "upsample": "nearest"}, "are for an autoencoder of windows"),
        ({"upsample": "magic"}, "there is no upsample 'magic'"),
        ({"watch": 100}, "has no images to watch"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainSettings(Path("x"), Path("y"), **(SMALL | options))


def test_photos_smaller_than_the_window_are_one_line(natives: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="8 images of .* are smaller than 64"):
        GeneratorTraining(TrainSettings(natives, tmp_path, **(SMALL | {"window": 64})))
