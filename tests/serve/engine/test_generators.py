import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crossfake.errors import UserError
from crossfake.serve.engine.generators import RunGenerators
from crossfake.synth.sampling.latents import mixing_table
from crossfake.synth.sampling.models import load_model

from ...synth.conftest import reals, trained  # noqa: F401


@pytest.fixture(scope="module")
def root(
    trained: Callable[[str], Path],  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two finished runs, one that is not, a bare model folder, a blender, a damaged card, and a pipeline of a hub."""
    root = tmp_path_factory.mktemp("runs")
    for family in ("stylegan2", "dcgan"):
        shutil.copytree(trained(family), root / "made" / family)
    shutil.copytree(root / "made" / "dcgan", root / "unfinished")
    (root / "unfinished" / "finished.json").unlink()
    shutil.copytree(root / "made" / "dcgan" / "model", root / "bare")
    for name, card in (("blender", {"family": "blend"}), ("hub", {"family": "pipeline"})):
        shutil.copytree(root / "bare", root / name)
        (root / name / "model.json").write_text(json.dumps(card))
    shutil.copytree(root / "bare", root / "broken")
    (root / "broken" / "model.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def generators(root: Path) -> RunGenerators:
    return RunGenerators(root, device="cpu")


def test_only_generators_that_make_pictures_are_listed(generators: RunGenerators) -> None:
    assert set(generators.names()) == {"made/stylegan2", "made/dcgan", "bare"}


def test_only_the_styles_that_a_generator_has_can_be_mixed(generators: RunGenerators) -> None:
    assert generators.layers("made/stylegan2") == ("coarse", "middle")
    assert generators.layers("made/dcgan") == ()


@pytest.mark.parametrize("name", ["made/stylegan2", "made/dcgan"])
def test_a_seed_is_image_0_of_generate(name: str, generators: RunGenerators) -> None:
    model = load_model(generators.root / name, device="cpu")
    pictures = generators.sample(name, [5, 2], 0.7)
    assert pictures.shape == (2, 16, 16, 3) and pictures.dtype == np.uint8
    for picture, seed in zip(pictures, (5, 2), strict=True):
        assert np.array_equal(picture, model.images(0, 1, seed, 0.7)[0])


@pytest.mark.parametrize("name", ["made/stylegan2", "made/dcgan"])
def test_a_walk_has_so_many_steps_from_seed_to_seed(name: str, generators: RunGenerators) -> None:
    walk = generators.interpolate(name, [1, 2, 3], 0.7, steps=4)
    assert walk.shape == (12, 16, 16, 3)
    if name == "made/dcgan":  # of one without styles the whole vector moves, and passes the seeds themselves
        assert np.array_equal(walk[[0, 4, 8]], generators.sample(name, [1, 2, 3], 0.7))
    with pytest.raises(UserError, match="two seeds"):
        generators.interpolate(name, [1], 0.7, steps=4)


def test_mixing_is_the_table_of_the_command(generators: RunGenerators) -> None:
    model = load_model(generators.root / "made/stylegan2", device="cpu")
    sheet = generators.mix("made/stylegan2", [1, 2], [3], "coarse", 0.7)
    assert np.array_equal(sheet, mixing_table(model, [1, 2], [3], "coarse", 0.7))
    with pytest.raises(UserError, match="no styles"):
        generators.mix("made/dcgan", [1], [2], "coarse", 0.7)


@pytest.mark.parametrize("name", ["unfinished", "../bare", "/etc", "blender", ""])
def test_a_name_that_is_not_listed_leads_nowhere(name: str, generators: RunGenerators) -> None:
    with pytest.raises(UserError, match="there is no generator"):
        generators.sample(name, [1], 0.7)


def test_few_models_stay_loaded_and_a_new_training_is_noticed(root: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(root / "bare", tmp_path / name)
    generators = RunGenerators(tmp_path, device="cpu")
    for name in ("a", "b", "c", "a"):
        generators.sample(name, [1], 1.0)
    assert [key[0] for key in generators._loaded] == ["c", "a"]
    before = generators._model("a")
    assert generators._model("a") is before
    (tmp_path / "a" / "model.json").touch()
    card = tmp_path / "a" / "model.json"
    import os

    os.utime(card, (1, 1))
    assert generators._model("a") is not before
