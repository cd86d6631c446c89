"""Moving and turning of StyleGAN3's pictures, by commands and in shards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.synth.cli import synth
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.interpolation import frames
from crossfake.synth.sampling.latents import grid, move
from crossfake.synth.sampling.models import load_model
from crossfake.synth.sampling.perception import Perception, pixel_features
from crossfake.synth.sampling.projection import project
from crossfake.synth.settings import GenerateSettings, Move


@pytest.fixture
def run(trained: Callable[..., Path]) -> Path:
    return trained("stylegan3")


def test_shards_of_moved_pictures_say_so(run: Path, tmp_path: Path) -> None:
    still = generate(GenerateSettings(3, run, tmp_path / "still"))
    moved = generate(GenerateSettings(3, run, tmp_path / "moved", translate=(0.25, 0.0), rotate=90.0))
    facts = ShardSet(moved).attributes
    assert facts["translate"] == [0.25, 0.0] and facts["rotate"] == 90.0
    assert "rotate" not in ShardSet(still).attributes
    assert not np.array_equal(ShardSet(still).read_many([0]), ShardSet(moved).read_many([0]))
    with pytest.raises(UserError, match="other settings"):
        generate(GenerateSettings(3, run, tmp_path / "moved", rotate=90.0))


def test_grid_moves_by_command_as_by_function(run: Path, tmp_path: Path) -> None:
    model = load_model(run)
    still = grid(model, [1, 2])
    move(model, Move((0.25, 0.0), 30.0))
    moved = grid(model, [1, 2])
    move(model, Move())
    assert np.array_equal(grid(model, [1, 2]), still) and not np.array_equal(moved, still)
    command = ["grid", "--model", str(run), "--seeds", "1-2", "--out", str(tmp_path / "grid.png")]
    done = CliRunner().invoke(synth, [*command, "--translate", "0.25,0", "--rotate", "30"])
    assert done.exit_code == 0, done.output
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grid.png")), moved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--translate", "0.1"], "'0.1' is not two numbers"),
        (["--translate", "a,b"], "two numbers"),
        (["--translate", "0.1,2"], "translate 2.0 is out of range"),
        (["--translate", "nan,0"], "translate nan is out of range"),
        (["--rotate", "nan"], "rotate nan is out of range"),
        (["--rotate", "361"], "rotate 361.0 is out of range"),
    ],
)
def test_moves_that_make_no_sense_are_one_line(
    options: list[str], message: str, run: Path, tmp_path: Path
) -> None:
    for command in (["grid"], ["generate", "--n", "2"]):
        out = str(tmp_path / "out")
        done = CliRunner().invoke(synth, [*command, "--model", str(run), "--out", out, *options])
        assert done.exit_code == 2 and message in done.output.splitlines()[-1], done.output


def test_other_generators_cannot_be_moved(trained: Callable[..., Path], tmp_path: Path) -> None:
    for family in ("stylegan2", "dcgan"):
        with pytest.raises(UserError, match="cannot be moved"):
            generate(GenerateSettings(2, trained(family), tmp_path / family, rotate=10.0))


def test_films_and_projections_go_through_w(run: Path) -> None:
    model = load_model(run, precision="fp32")
    film = np.concatenate(list(frames(model, [1, 2], "w", steps=2)))
    assert film.shape == (4, 16, 16, 3)
    photos = model.images(0, 2)
    found = project(model, photos, steps=3, perception=Perception("pixels", pixel_features))
    assert found.images.shape == (2, 16, 16, 3) and found.noise == []
    assert found.ws.shape[1:] == (16, 256)
