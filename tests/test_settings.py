"""Every number that a user can give: what makes no sense ends in one line, wherever it is given."""

import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from crossfake.bounds import choices_of, numbers_of
from crossfake.cli import main
from crossfake.errors import UserError

BAD = (-1, math.nan, math.inf, 10**30)
PACKAGES = ("core", "datasets", "synth", "detect", "serve", "experiments")
ROOT = Path(__file__).parents[1]

# what a command needs before it looks at a number; none of it is there but PICTURE
NEEDED = {
    "synth train": "--data nowhere",
    "synth generate": "--n 5 --model nowhere",
    "synth evaluate": "--real nowhere --fake nowhere",
    "synth import": "nowhere --out out",
    "synth grid": "--model nowhere",
    "synth interpolate": "--model nowhere",
    "synth project": "PICTURE --model nowhere",
    "detect train": "--real nowhere --fake nowhere --with-synthetic nowhere",
    "detect evaluate": "--bundle nowhere --data nowhere",
    "detect predict": "PICTURE --bundle nowhere",
    "detect explain": "PICTURE --bundle nowhere",
    "detect tune": "--real nowhere --fake nowhere",
    "detect calibrate": "--bundle nowhere --real nowhere --fake nowhere",
    "detect serve": "--bundle nowhere",
    "data prepare": "nowhere --out out",
    "data audit": "--real nowhere --fake nowhere",
    "data launder": "--real nowhere --fake nowhere --out out",
    "data split": "nowhere",
    "experiment run": "smoke --dry-run",
    "experiment report": "nowhere",
}


def _commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def _numeric() -> Iterator[tuple[str, str]]:
    for path, command in _commands(main):
        for option in command.params:
            if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
                yield path, option.opts[0]


@pytest.mark.parametrize(("path", "option"), list(_numeric()))
def test_a_number_that_makes_no_sense_is_one_line(
    path: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "crossfake.cli.Existing.check", lambda self, path: None
    )  # paths are told before numbers
    (tmp_path / "picture.png").write_bytes(b"")
    needed = NEEDED[path].replace("PICTURE", "picture.png").split()
    for value in BAD:
        result = CliRunner().invoke(main, [*path.split(), *needed, option, str(value)])
        assert isinstance(result.exception, SystemExit) and result.exit_code == 2, (value, result.output)
        last = result.output.strip().splitlines()[-1]
        assert option in last and last.lower().startswith("error:"), (value, result.output)
        assert "out of range" in last or "not in the range" in last or "is not a valid" in last, last


def test_every_command_with_numbers_is_among_them() -> None:
    assert {path for path, _ in _numeric()} == set(NEEDED)


def _dataclasses() -> dict[str, type]:
    """Those that are filled from a command line, a ``config.yaml`` or an experiment's YAML."""
    found = {}
    for package in PACKAGES:
        root = "crossfake" if package == "core" else f"crossfake.{package}"
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{root}."):
            if module.name.endswith("__main__") or (package == "core" and module.ispkg):
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                if name.endswith("Settings") and isinstance(value, type) and dataclasses.is_dataclass(value):
                    found[f"{value.__module__}.{value.__name__}"] = value
    return found


def _instances() -> list[Any]:
    from crossfake.datasets.audit.settings import AuditSettings
    from crossfake.datasets.crops import Cropper
    from crossfake.datasets.settings import LaunderSettings, PrepareSettings, SplitSettings
    from crossfake.detect.settings import (
        CalibrateSettings,
        EnsembleSettings,
        EvaluateSettings,
        ExplainSettings,
        ExportSettings,
        LoadSettings,
        PredictSettings,
        TuneSettings,
    )
    from crossfake.detect.settings import ImportSettings as PublishedSettings
    from crossfake.detect.training.settings import TrainSettings
    from crossfake.executor import Demand, ExecutorSettings
    from crossfake.experiments.design.config import Config, DetectorConfig, GeneratorConfig
    from crossfake.experiments.run.executors import Local
    from crossfake.experiments.settings import ReportSettings, RunSettings
    from crossfake.serve.intake.limits import Limits
    from crossfake.serve.settings import ServeSettings
    from crossfake.synth.settings import EvaluateSettings as QualitySettings
    from crossfake.synth.settings import (
        GenerateSettings,
        GridSettings,
        ImportSettings,
        InterpolateSettings,
        ProjectSettings,
    )
    from crossfake.synth.training.settings import TrainSettings as SynthSettings

    path, words = Path("nowhere"), ("nowhere",)
    train = TrainSettings((path,), path, (path,), synthetic=(path,))
    detector, generator = DetectorConfig("cnn"), GeneratorConfig("a", (path,))
    return [
        AuditSettings(words, words),
        Cropper(64),
        LaunderSettings(words, words, path),
        SplitSettings((path,)),
        PrepareSettings("nowhere", path),
        Limits(),
        ServeSettings((path,)),
        CalibrateSettings(path, (path,), (path,)),
        EnsembleSettings((path,)),
        EvaluateSettings(path, (path,)),
        ExplainSettings(path, (path,)),
        ExportSettings(path),
        PredictSettings(),
        train,
        TuneSettings(train, path),
        detector,
        generator,
        Config("a", "cross-generator", (detector,), (generator,), real=(path,)),
        Local(),
        Demand(),
        ExecutorSettings(),
        LoadSettings(),
        PublishedSettings(path, "", path),
        RunSettings("a"),
        ReportSettings(path),
        GridSettings(),
        InterpolateSettings(),
        ImportSettings(path, path),
        QualitySettings(path, path),
        GenerateSettings(5),
        ProjectSettings(path, path),
        SynthSettings(path, path),
    ]


def test_no_settings_take_a_number_that_makes_no_sense() -> None:
    for settings in _instances():
        for name, number in numbers_of(type(settings)).items():
            for value in (*BAD, "many", True):
                with pytest.raises(UserError) as error:
                    dataclasses.replace(settings, **{name: (value,) if number.several else value})
                told = str(error.value)
                assert "\n" not in told, told
                assert name in told.replace("-", "_"), f"{type(settings).__name__}.{name} {value}: {told}"


def test_every_number_of_settings_has_its_bounds() -> None:
    known = {type(settings) for settings in _instances()}
    assert set(_dataclasses().values()) <= known
    for settings in known:
        for name, number in numbers_of(settings).items():
            assert number.bounds is not None, f"{settings.__name__}.{name}"


def test_a_config_that_was_edited_is_one_line(tmp_path: Path) -> None:
    from crossfake.experiments.design.config import load
    from crossfake.synth.training.runs import resumed

    (tmp_path / "config.yaml").write_text("kind: synth\ndata: reals\nfamily: dcgan\nlr: -1.0\n")
    with pytest.raises(UserError, match=r"--lr -1.0 is out of range: give a number above 0, at most 10"):
        resumed(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "name: a\nprotocol: cross-generator\nreal: reals\ndetectors: [cnn]\ngenerators:\n"
        "- name: b\n  dir: fakes\n  trunc: .nan\n"
    )
    with pytest.raises(UserError, match=r"a\.yaml, line 6: generators\[0\]: trunc nan is out of range"):
        load(tmp_path / "a.yaml")


def test_choices_are_what_there_is() -> None:
    """Settings bring no torch, so they name what is registered elsewhere; both have to say the same."""
    from crossfake.datasets.codecs import CODECS
    from crossfake.datasets.crops import EDGES, PIXELS, POLICIES, WHICH
    from crossfake.datasets.settings import PrepareSettings
    from crossfake.detect import ensemble
    from crossfake.detect.bundle import calibration, export
    from crossfake.detect.settings import CalibrateSettings, EnsembleSettings, ExportSettings
    from crossfake.detect.training.recipes import RECIPES
    from crossfake.detect.training.settings import RECIPE_NAMES
    from crossfake.synth.quality.measures import MEASURES
    from crossfake.synth.settings import METRICS

    assert tuple(MEASURES) == METRICS
    assert set(RECIPE_NAMES) <= set(RECIPES.names())
    assert choices_of(CalibrateSettings)["method"] == ("auto", *calibration.METHODS)
    assert choices_of(EnsembleSettings)["method"] == ensemble.METHODS
    assert choices_of(ExportSettings)["format"] == tuple(export.FORMATS)
    prepared = choices_of(PrepareSettings)
    assert (prepared["codec"], prepared["crop"]) == (CODECS, POLICIES)
    assert (prepared["pixels"], prepared["faces"]) == (PIXELS, WHICH)
    assert set(prepared["edge"]) == {None, *(edge for edges in EDGES.values() for edge in edges)}
