from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from crossfake.errors import UserError
from crossfake.synth.cli import synth
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.sampling.latents import (
    grid,
    mixing_table,
    render,
    styled,
    styles_of,
    synthesise,
    vectors_of,
)
from crossfake.synth.sampling.models import Model, load_model
from crossfake.synth.settings import parse_psis

SIDE, CAPTION, PAD, TIMES = 64, 13, 2, 4  # of a sheet's cells; 16×16 images are drawn four times as large


@pytest.fixture
def model(trained: Callable[..., Path]) -> Model:
    return load_model(trained("stylegan2", noise=True), device="cpu")


def _cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = PAD + row * (SIDE + CAPTION + PAD), PAD + column * (SIDE + PAD)
    return sheet[top : top + SIDE : TIMES, left : left + SIDE : TIMES]


def test_truncations_are_in_range() -> None:
    assert parse_psis("0, 0.5,1") == [0, 0.5, 1]
    with pytest.raises(UserError, match="no list"):
        parse_psis("0,,1")
    for wrong in ("3", "-1", "nan"):
        with pytest.raises(UserError, match="out of range"):
            parse_psis(wrong)


@pytest.mark.parametrize("family", [name for name in ("stylegan2", "dcgan", "r3gan")])
def test_a_seed_is_image_0_of_generate(family: str, trained: Callable[[str], Path]) -> None:
    model = load_model(trained(family), device="cpu")
    seeds = [4, 0, 11, 4]
    images = render(model, vectors_of(model, seeds), psi=0.7)
    for image, seed in zip(images, seeds, strict=True):
        assert np.array_equal(image, model.images(0, 1, seed, 0.7)[0])
    sheet = grid(model, seeds, [0.7])
    for k in range(4):
        assert np.array_equal(_cell(sheet, k // 2, k % 2), images[k])


def test_a_sweep_has_a_row_a_seed_and_a_column_a_truncation(model: Model) -> None:
    styled(model)
    for layer in model.network.modules():
        if hasattr(layer, "noise_strength"):
            layer.noise_strength.data.zero_()
    sheet = grid(model, [1, 2, 3], [0, 1])
    mean = _cell(sheet, 0, 0)
    for row, seed in enumerate([1, 2, 3]):
        assert np.array_equal(_cell(sheet, row, 0), mean)
        assert np.array_equal(_cell(sheet, row, 1), model.images(0, 1, seed)[0])
        assert not np.array_equal(_cell(sheet, row, 1), mean)


def test_mixing_takes_the_layers_and_leaves_the_rest(model: Model) -> None:
    network = styled(model)
    ws, vectors = styles_of(model, [1, 2, 3], 0.8, None)
    noise = network.split_noise(vectors)
    for name, cut in (("coarse", slice(0, 4)), ("middle", slice(4, 6))):
        sheet = mixing_table(model, [1, 2], [3, 1], name, 0.8)
        own = synthesise(model, ws, noise)
        assert np.array_equal(_cell(sheet, 1, 0), own[0]) and np.array_equal(_cell(sheet, 0, 1), own[2])
        assert np.array_equal(_cell(sheet, 1, 2), own[0])  # 1 with styles of 1
        hand = ws[:2].clone()
        hand[:, cut] = ws[[2, 2], cut]
        made = synthesise(model, hand, [plane[:2] for plane in noise])
        assert np.abs(_cell(sheet, 1, 1).astype(int) - made[0]).max() <= 1
        assert np.abs(_cell(sheet, 2, 1).astype(int) - made[1]).max() <= 1
        assert not np.array_equal(made[0], own[0])


def test_what_cannot_be_mixed_is_said(model: Model, trained: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="has no fine layers"):
        mixing_table(model, [1], [2], "fine")
    with pytest.raises(UserError, match="no 'all' layers"):
        mixing_table(model, [1], [2], "all")
    with pytest.raises(UserError, match="a dcgan, which has no styles"):
        mixing_table(load_model(trained("dcgan"), device="cpu"), [1], [2])
    with pytest.raises(UserError, match="no class 1"):
        grid(model, [1], label=1)


def test_a_class_can_be_chosen() -> None:
    network = FAMILIES.get("stylegan2").generator(size=16, channels=64, classes=2).eval()
    card = {"size": 16, "classes": ["a", "b"]}
    model = Model(Path("m"), "stylegan2", network, card, "0" * 64, torch.device("cpu"), torch.float32)
    first, second = (render(model, vectors_of(model, [5]), label=label) for label in (0, 1))
    assert np.array_equal(first, model.images(0, 1, 5)) and not np.array_equal(first, second)


def test_the_command_draws_sheets(trained: Callable[[str], Path], tmp_path: Path) -> None:
    common = ["grid", "--model", str(trained("stylegan2")), "--out", str(tmp_path / "a" / "sheet.png")]
    for more in (["--seeds", "1-6"], ["--seeds", "1-2", "--mix", "coarse", "--columns", "7-8"]):
        result = CliRunner().invoke(synth, [*common, *more])
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / "a" / "sheet.png") as picture:
            assert picture.width == PAD + 3 * (SIDE + PAD)
    for wrong, message in (
        (["--mix", "coarse", "--trunc", "0,1"], "one truncation"),
        (["--columns", "1"], "--mix"),
    ):
        result = CliRunner().invoke(synth, [*common, *wrong])
        assert isinstance(result.exception, SystemExit) and result.exit_code == 2 and message in result.output
