"""The experiment's YAML: what it may say, and that each mistake is named with its key and line."""

from pathlib import Path

import pytest
import yaml

from crossfake.errors import UserError
from crossfake.experiments import config as config_module
from crossfake.experiments.config import Config, load, to_dict

GOOD = """\
name: trial
detectors: [cnn, {model: resnet18, name: big, settings: {steps: 5}}]
seeds: [0, 1]
real: [faces]
seen: [{dir: fakes/old, name: old}]
synthetic: [fakes/mine]
unseen:
  - name: web
    fake: web/fake
    real: ${FACES}/real
"""
CONFIGS = sorted((Path(config_module.__file__).parent / "configs").glob("*.yaml"))


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
    assert loaded.unseen[0].real == Path("/somewhere/real") and loaded.seen[0].name == "old"
    assert loaded.synthetic[0].name == "mine"


def test_it_survives_being_written_down(write):
    loaded = load(write(GOOD))
    assert load(yaml.safe_load(yaml.safe_dump(to_dict(loaded)))) == loaded


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seeds: [0, 1]", "sedes: [0, 1]", "line 3: sedes: there is no such key: did you mean seeds?"),
        ("seeds: [0, 1]", "seeds: [0, x]", "line 3: seeds[1]: expected int, found 'x'"),
        ("seeds: [0, 1]", "seeds: [0, true]", "line 3: seeds[1]: expected int, found True"),
        ("seeds: [0, 1]", "seeds: 3", "line 3: seeds: expected a list, found 3"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "two seeds are called 1"),
        ("seeds: [0, 1]", "seeds: [0]\nseeds: [1]", "line 4: seeds is given twice"),
        ("name: trial", "note: trial", "line 1: name is missing: add it"),
        ("    fake: web/fake\n", "", "line 8: unseen[0]: fake is missing"),
        ("real: [faces]", "real: []", "there are no reals"),
        ("synthetic: [fakes/mine]", "synthetic: []", "there are no synthetic fakes"),
        ("name: web", "name: old", "two fakes are called 'old'"),
        ("real: [faces]", "real: [faces", "is not YAML"),
        (
            "${FACES}",
            "${NOWHERE_AT_ALL}",
            "line 10: unseen[0].real: the environment variable NOWHERE_AT_ALL is not set",
        ),
        (
            "seeds: [0, 1]",
            "generators: [{name: a, role: sen, n: 5}]",
            "generators[0].role: 'sen' is none of seen, synthetic",
        ),
        ("seeds: [0, 1]", "generators: [{name: a, role: seen, n: 0}]", "line 3: generators[0]: n is 0"),
        ("seeds: [0, 1]", "generators: [{name: a/b, role: seen, n: 9}]", "'a/b' names a folder"),
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
def test_the_shipped_configs_load(file, monkeypatch):
    for name in ("PHOTOS", "RUNS"):
        monkeypatch.setenv(name, "x")
    assert isinstance(load(file), Config)
