"""What a paper would say of an experiment: every figure is the experiment's, and what is cited is what was used."""

import json
import re
from pathlib import Path

import pytest

from crossfake.detect.models import MODELS as DETECTORS
from crossfake.detect.training.recipes import RECIPES as TRAININGS
from crossfake.experiments.report import methods as written
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.methods import (
    FAMILIES,
    LIBRARY,
    MODELS,
    QUALITY,
    RECIPES,
    methods,
    works_of,
)
from crossfake.experiments.report.results import Results
from crossfake.synth.families.base import FAMILIES as GENERATORS
from crossfake.synth.quality.table import ORDER

from ..conftest import write_experiment


def _written(folder):
    results = Results(folder)
    return methods(results, answers(results))


def _keys(text):
    return {key for group in re.findall(r"\\cite\{(.*?)\}", text) for key in group.split(",")}


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("methods") / "x", seeds=(0, 3), resamples=120)


def test_figures_are_those_of_the_experiment(ablation):
    text = _written(ablation)["methods.tex"]
    assert "We trained 2 detectors: cnn and resnet\\_18~\\cite{he2016deep,wightman2019timm}." in text
    assert "``without'' (fakes of splice) and ``with'' (fakes of splice and stylegan2)" in text
    assert "With seeds 0 and 3 this made 8 trainings." in text
    assert "Each training took 100 steps of 32 pictures." in text
    assert "come from 120 bootstrap resamples" in text and "Networks were trained with crossfake 1.0." in text
    assert "dcgan 130 fakes, 120 reals" in text and "Chance: 0.500." in text
    assert "in one comparison, fixed beforehand" in text
    assert "The quality of stylegan2, dcgan and web faces was measured by sliced Wasserstein~" in text


def test_settings_that_differ_are_said_of_each_detector(ablation, tmp_path):
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    for file in folder.glob("cells/*/cell.json"):
        card = json.loads(file.read_text())
        if card["detector"] == "cnn":
            card["settings"] = {
                "steps": 2500,
                "batch": 16,
                "lr": 1e-5,
                "weight_decay": 0.01,
                "recipe": "sbi",
                "augment": 0.1,
                "weights": "x.pt",
            }
            file.write_text(json.dumps(card))
    found = _written(folder)
    text = found["methods.tex"]
    assert "Each training of cnn took 2,500 steps of 16 pictures with AdamW" in text
    assert r"step size $1 \times 10^{-5}$" in text and "from pretrained weights" in text
    assert r"Each training of resnet\_18 took 100 steps of 32 pictures." in text
    assert (
        "shiohara2022detecting" in _keys(text)
        and "@inproceedings{shiohara2022detecting," in found["references.bib"]
    )
    assert "With one seed they leave out" in text and "Student" not in text


def test_native_windows_pairs_and_options_are_said(tmp_path):
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    for file in folder.glob("cells/*/cell.json"):
        card = json.loads(file.read_text())
        card["settings"] = {
            "steps": 400,
            "batch": 32,
            "view": "native",
            "window": 128,
            "pair": True,
            "benign": True,
            "loss": "contrastive",
            "options": {"tune": "lora", "head": "positive"},
        }
        file.write_text(json.dumps(card))
    file = folder / "experiment.json"
    experiment = json.loads(file.read_text())
    experiment["config"]["reencode"] = {"jpeg": 85}
    file.write_text(json.dumps(experiment))
    text = _written(folder)["methods.tex"]
    assert (
        r"on windows of $128 \times 128$ pixels at the pictures' own resolution, each fake made of a photo"
        in text
    )
    assert "a quarter of the reals retouched" in text and "tune lora~\\cite{hu2022lora}" in text
    assert {"khosla2020supervised", "rajan2025stay"} <= _keys(text)
    assert "all were coded alike, as JPEG of quality 85." in text


def test_what_is_cited_is_in_the_bibliography_and_nothing_else(ablation, tmp_path):
    for folder in (ablation, write_experiment(tmp_path / "m", "matrix", seeds=(0,))):
        found = _written(folder)
        listed = re.findall(r"^@\w+\{([\w-]+),", found["references.bib"], re.M)
        assert sorted(listed) == sorted(_keys(found["methods.tex"])) and listed
    assert not {"holm1979simple", "delong1988comparing"} & set(listed)  # a matrix asks no comparison
    assert "karras2018progressive" not in listed  # nor was quality measured


def test_perturbations_are_named(tmp_path):
    text = _written(write_experiment(tmp_path / "x", "robustness", seeds=(0,)))["methods.tex"]
    assert "perturbed pictures: jpeg (30, 60, 90) and blur (1, 2)." in text


def test_every_name_that_can_be_used_is_known():
    assert set(MODELS) == set(DETECTORS.names())
    assert set(GENERATORS.names()) | {"splice"} == set(FAMILIES)
    assert set(RECIPES) == set(TRAININGS.names())
    assert set(QUALITY) >= set(ORDER)


def test_the_library_has_every_work_once_and_no_other():
    listed = re.findall(r"^@\w+\{([\w-]+),", LIBRARY.read_text(), re.M)
    assert len(set(listed)) == len(listed)
    code = Path(written.__file__).read_text()
    assert {key for _, key in re.findall(r"""(["'])([a-z\d]+(?:19|20)\d\d[a-z\d]+)\1""", code)} == set(listed)


@pytest.mark.parametrize(
    ("model", "works"),
    [
        ("resnet18", ["he2016deep", "wightman2019timm"]),
        ("tf_efficientnet_lite0", ["tan2019efficientnet", "wightman2019timm"]),
        ("vit_small_patch14_dinov2", ["dosovitskiy2021image", "oquab2024dinov2", "wightman2019timm"]),
        ("cnn", []),
        ("some_new_net", ["wightman2019timm"]),
    ],
)
def test_works_of_models(model, works):
    assert list(works_of(model)) == works
