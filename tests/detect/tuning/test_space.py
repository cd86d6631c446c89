import dataclasses
from pathlib import Path

import numpy as np
import pytest

from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.tuning.space import (
    SPACES,
    Choices,
    Range,
    find_space,
    load_space,
    parse_space,
    typed_value,
)
from crossfake.errors import UserError

BASE = TrainSettings((Path("real"),), Path("out"), (Path("fake"),))


def test_every_kind_of_entry() -> None:
    space = parse_space(
        "lr: {low: 1e-4, high: 1e-2, log: true}\n"
        "batch: {low: 16, high: 64, step: 16}\n"
        "augment: {low: 0, high: 1}\n"
        "model: [cnn, resnet18]\n"
        "weights: {choices: [null, a.safetensors]}\n"
        "patience: 8\n",
        base=BASE,
    )
    assert space.searched["lr"] == Range(1e-4, 1e-2, log=True)
    assert space.searched["batch"] == Range(16, 64, step=16, integer=True)
    assert space.searched["augment"] == Range(0.0, 1.0)
    assert space.searched["model"] == Choices(("cnn", "resnet18"))
    assert space.searched["weights"] == Choices((None, Path("a.safetensors")))
    assert space.fixed == {"patience": 8}


def test_optuna_suggests_within_the_space_and_back_come_settings() -> None:
    optuna = pytest.importorskip("optuna")
    space = parse_space(
        "lr: {low: 1e-4, high: 1e-2, log: true}\nbatch: {low: 16, high: 64, step: 16}\n"
        "weights: [null, a.safetensors]\npretrained: [true, false]"
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    rates = []
    for _ in range(60):
        trial = study.ask(space.distributions())
        settings = dataclasses.replace(BASE, **space.values(trial.params))
        assert space.params(settings) == trial.params
        assert settings.batch in (16, 32, 48, 64) and isinstance(settings.batch, int)
        assert settings.weights in (None, Path("a.safetensors"))
        rates.append(settings.lr)
    assert min(rates) >= 1e-4 and max(rates) <= 1e-2
    assert 0.25 < np.mean(np.array(rates) < 1e-3) < 0.75  # half of a log range lies below its middle


def test_grid() -> None:
    assert Range(1e-4, 1e-2, log=True).grid() == pytest.approx([1e-4, 1e-3, 1e-2])
    assert Range(0.0, 1.0, step=0.25).grid() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert Range(0.0, 1.0, step=0.3).grid() == pytest.approx([0, 0.3, 0.6, 0.9])
    assert Range(1, 10, points=4, integer=True).grid() == [1, 4, 7, 10]
    assert Range(1, 2, points=3, integer=True).grid() == [1, 2]
    assert Choices((None, Path("a"), [1, 2])).grid() == [None, "a", "[1, 2]"]


def test_default_outside_the_space_is_no_trial() -> None:
    assert parse_space("lr: {low: 1e-4, high: 1e-2}").params(BASE) == {"lr": BASE.lr}
    assert parse_space("lr: {low: 1e-5, high: 1e-4}").params(BASE) is None
    assert parse_space("batch: [32, 128]").params(BASE) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rate: [1]", "no such setting"),
        ("weight_decays: [0.1]", "did you mean weight_decay?"),
        ("seed: [1, 2]", "not for searching"),
        ("real: [a]", "not for searching"),
        ("lr: {low: 1e-2, high: 1e-4}", "not below high"),
        ("lr: {low: 0, high: 1, log: true}", "low above 0"),
        ("lr: {low: 1e-4, high: 1e-2, log: true, step: 1e-4}", "no step"),
        ("lr: {low: 1e-4, hihg: 1e-2}", "did you mean high?"),
        ("lr: {low: 1e-4}", "high is missing"),
        ("lr: {low: .nan, high: 1}", "not below high"),
        ("lr: {low: a, high: b}", "expected float, found 'a'"),
        ("batch: {low: 16.5, high: 32}", "expected int, found 16.5"),
        ("batch: [16, yes]", "expected int, found True"),
        ("batch: [16, 16]", "given twice"),
        ("batch: []", "list of choices"),
        ("batch: {choices: 3}", "list of choices"),
        ("batch: {low: 1, high: 64}", "--batch 1 is out of range"),
        ("tune: [probe, full]", "needs a network that has learnt"),
        ("recipe: [plain, wang]", "no recipe 'wang'"),
        ("augment: [0.5, 1.5]", "--augment 1.5 is out of range"),
        ("model: {low: 1, high: 2}", "only numbers have a range"),
        ("pretrained: [1, 0]", "expected bool"),
        ("precision: [bf16, fp8]", "expected auto or bf16 or fp32, found 'fp8'"),
        ("lr: {low: 1e-4, high: 1e-2, points: 1}", "at least 2 points"),
        ("patience: 5", "given twice"),
    ],
)
def test_mistakes_name_file_line_and_setting(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"# a comment\npatience: [3, 5]\n{line}\n")
    with pytest.raises(UserError) as error:
        load_space(file, BASE)
    assert words in str(error.value)
    assert f"{file}, line 3: {line.split(':')[0]}: " in str(error.value)


def test_mistakes_of_the_whole_file(tmp_path: Path) -> None:
    for text, words in (
        ("lr: {low: 1", "is not YAML"),
        ("", "names no settings"),
        ("- lr", "names no settings"),
        ("lr: 0.1", "nothing to search"),
    ):
        with pytest.raises(UserError, match=words):
            parse_space(text)
    with pytest.raises(UserError, match="cannot read"):
        load_space(tmp_path / "none.yaml")


def test_a_space_cannot_make_python_objects() -> None:
    with pytest.raises(UserError, match="line 1: lr: could not determine a constructor"):
        parse_space("lr: !!python/object/apply:os.getcwd []")


def test_shipped_spaces_are_valid_and_found_by_name(tmp_path: Path) -> None:
    assert {path.stem for path in SPACES.glob("*.yaml")} == {"scratch", "finetune"}
    for file in SPACES.glob("*.yaml"):
        assert find_space(file.stem) == file
        assert load_space(file, BASE).searched
    with pytest.raises(UserError, match="or one of finetune, scratch"):
        find_space("nothing")


def test_fixed_settings_are_there_when_the_others_are_checked() -> None:
    space = parse_space("tune: [probe, full]\npretrained: true\noptions: {head: nearest}", base=BASE)
    assert space.searched["tune"] == Choices(("probe", "full"))
    assert space.fixed == {"pretrained": True, "options": {"head": "nearest"}}


def test_typed_value() -> None:
    assert typed_value([1, "2e-1"], tuple[float, ...]) == (1.0, 0.2)
    assert typed_value(["a", "b"], tuple[Path, ...]) == (Path("a"), Path("b"))
    assert typed_value({"size": 64}, dict[str, int]) == {"size": 64}
    assert typed_value(None, int | None) is None
    for value, hint in (("x", int), (True, float), ([1], tuple[int, int]), (None, str)):
        with pytest.raises(UserError, match="expected"):
            typed_value(value, hint)
