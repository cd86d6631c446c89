"""The experiment's YAML: what it may say, and that each mistake is named with its key and line."""

import re
from pathlib import Path

import pytest
import yaml

from crossfake.errors import UserError
from crossfake.experiments.design import config as config_module
from crossfake.experiments.design.config import load, to_dict
from crossfake.experiments.design.protocols import design

GOOD = """\
name: trial
protocol: synthetic-ablation
detectors: [cnn, {model: resnet18, name: big, settings: {steps: 5}}]
seeds: [0, 1]
real: [faces]
generators:
  - {name: old, role: seen, dir: fakes/old}
  - {name: mine, role: synthetic, dir: fakes/mine, family: gan, year: 2020}
  - name: web
    role: unseen
    dir: web/fake
    real: ${FACES}/real
perturbations: {jpeg: [90, 50], blur: []}
"""
CONFIGS = sorted((Path(config_module.__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("FACES", "/somewhere")

    def write(text):
        file = tmp_path / "x.yaml"
        file.write_text(text)
        return file

    return write


def test_a_good_one(write):
    loaded = load(write(GOOD))
    assert [d.name for d in loaded.detectors] == ["cnn", "big"] and loaded.detectors[1].settings == {
        "steps": 5
    }
    assert loaded.of("unseen")[0].real == (Path("/somewhere/real"),) and loaded.of("seen")[0].kin == "old"
    assert loaded.of("synthetic")[0].kin == "gan" and loaded.perturbations == {"jpeg": (90, 50), "blur": ()}


def test_it_survives_being_written_down(write):
    loaded = load(write(GOOD))
    assert load(yaml.safe_load(yaml.safe_dump(to_dict(loaded)))) == loaded


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seeds: [0, 1]", "sedes: [0, 1]", "line 4: sedes: there is no such key: did you mean seeds?"),
        ("seeds: [0, 1]", "seeds: [0, x]", "line 4: seeds[1]: expected int, found 'x'"),
        ("seeds: [0, 1]", "seeds: [0, true]", "line 4: seeds[1]: expected int, found True"),
        ("seeds: [0, 1]", "seeds: 3", "line 4: seeds: expected a list, found 3"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "two seeds are called 1"),
        ("seeds: [0, 1]", "seeds: [0]\nseeds: [1]", "line 5: seeds is given twice"),
        ("name: trial", "note: trial", "line 1: name is missing: add it"),
        ("    dir: web/fake\n", "", "line 9: generators[2]: the fakes of web are neither there nor made"),
        ("real: [faces]", "real: []", "there are no reals"),
        ("name: web", "name: old", "two generators are called 'old'"),
        ("name: web", "name: real", "two generators are called 'real'"),
        ("name: web", "name: Old", "the generators 'old' and 'Old' would write the same files"),
        ("real: [faces]", "real: [faces", "is not YAML"),
        (
            "${FACES}",
            "${NOWHERE_AT_ALL}",
            "line 12: generators[2].real[0]: the environment variable NOWHERE_AT_ALL",
        ),
        ("role: seen", "role: sen", "line 7: generators[0].role: 'sen' is none of seen, synthetic"),
        ("dir: fakes/old", "family: dcgan, n: 0", "line 7: generators[0]: n is 0"),
        ("name: old", "name: a/b", "'a/b' names a folder"),
        ("year: 2020", "year: soon", "line 8: generators[1].year: expected int, found 'soon'"),
    ],
)
def test_mistakes_are_named(write, old, new, expected):
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        load(write(GOOD.replace(old, new)))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b\n"])
def test_not_a_mapping(write, text):
    with pytest.raises(UserError):
        load(write(text))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configs_load_and_make_a_design(file, monkeypatch):
    for name in set(re.findall(r"\$\{(\w+)\}", file.read_text())):
        monkeypatch.setenv(name, "x")
    found = design(load(file))
    assert found.conditions and found.tests
    assert file.read_text().startswith("# "), "'experiment list' shows the first line"


EXPERIMENT = """\
name: x
protocol: cross-generator
detectors: [{model: cnn, settings: {lr: 0.01, stps: 3}}]
real: [faces]
generators:
  - name: a
    dir: fakes
  - name: b
    model: runs/b
    n: 3
"""


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ((), r"x\.yaml, line 4: real\[0\]: faces is not a shard folder: make one with"),
        (("faces",), r"x\.yaml, line 7: generators\[0\]\.dir\[0\]: fakes is not a shard folder"),
        (("faces", "fakes"), r"x\.yaml, line 9: generators\[1\]\.model: runs/b holds no generator"),
    ],
)
def test_every_path_is_looked_for(there, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    for name in there:
        (tmp_path / name).mkdir()
        line = '{"name": "00000.h5", "count": 1, "sha256": ""}\n'
        (tmp_path / name / "manifest.jsonl").write_text(line)
    with pytest.raises(UserError, match=expected):
        load("x.yaml").check_paths()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train": {"weights": "no.pt"}}, r"train\.weights: no\.pt is not there"),
        ({"quality": {"inception": "no.pt"}}, r"quality\.inception: no\.pt is not there"),
        ({"prepare": {"source": "folder:nowhere"}}, r"prepare\.source: nowhere is not there"),
        ({"prepare": {"source": "nowhere"}}, r"prepare\.source: there is no source or folder 'nowhere'"),
        ({"prepare": {"source": "toyfaces"}}, ""),
    ],
)
def test_files_of_every_section_are_looked_for(settings, expected):
    config = load(
        {
            "name": "x",
            "protocol": "cross-generator",
            "detectors": ["cnn"],
            "generators": [],
            "prepare": {"source": "toyfaces"},
            **settings,
        }
    )
    if expected:
        with pytest.raises(UserError, match=expected):
            config.check_paths()
    else:
        config.check_paths()


def test_a_wrong_key_of_a_settings_section_has_its_line(tmp_path):
    from crossfake.experiments.run.running import check

    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    with pytest.raises(
        UserError, match=r"x\.yaml, line 3: detectors\[0\]\.settings\.stps: .*did you mean steps"
    ):
        check(load(tmp_path / "x.yaml"))
