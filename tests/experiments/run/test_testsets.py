"""The protocol ``conditions`` on tiny parts: which pictures face which, the same photos in two sizes, and coding."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy.special import logit

from crossfake.datasets.firewall import Seen
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.bundle.bundle import load as load_detector
from crossfake.detect.training.data import TrainingData
from crossfake.detect.training.sampling import Sampler
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.view import View
from crossfake.errors import UserError
from crossfake.experiments.design.config import load
from crossfake.experiments.design.perturbations import perturb
from crossfake.experiments.design.planning import plan
from crossfake.experiments.design.protocols import design
from crossfake.experiments.report.results import Results
from crossfake.experiments.report.sheet import Sheet, verify_sheet
from crossfake.experiments.run.cells import score_rows
from crossfake.experiments.run.running import Experiment, run
from crossfake.experiments.run.testsets import in_common, names_of

SPLITS = ("train", "train", "val", "test")


def write(folder, label, count, seed, source="toy", generator="", size=16, skip=(), parent=""):
    """Drawn faces; fakes are drawn coarser."""
    with ShardWriter(folder, size=size) as writer:
        for number in (n for n in range(count) if n not in skip):
            image = toyface((seed, number), size)
            if label:
                image = np.repeat(np.repeat(image[::2, ::2], 2, 0), 2, 1)
            name = f"{source}{generator}{number}"
            made_of = f"{parent}/{parent}{number}" if parent else ""
            row = Row(label, source, generator, SPLITS[number % 4], name, origin=name, parent=made_of)
            writer.append(image, row)
    if source == "synth":
        Seen().save(folder)
    return folder


@pytest.fixture(autouse=True)
def _audited(monkeypatch):
    """Audits have tests of their own, and take longer than all of this."""
    found = {"verdict": "pass", "summary": "audit: pass", "probes": {}}
    for module in ("run.running", "run.testsets"):
        monkeypatch.setattr(f"crossfake.experiments.{module}.audit_training", lambda *folders: found)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The same photos and fakes in two sizes."""
    root = tmp_path_factory.mktemp("drawn")
    for size in (16, 32):
        at = root / f"s{size}"
        write(at / "asia", 0, 48, 1, "asia", size=size)
        write(at / "web", 0, 48, 2, "web", size=size, skip=(3,) if size == 32 else ())
        write(at / "far", 0, 12, 3, "far", size=size)
        for seed, name in enumerate(("swap", "tiny"), 4):
            write(at / name, 1, 48, seed, "synth", name, size=size)
        write(at / "gan", 1, 32, 6, "web", "stylegan2", size=size)
        write(at / "sd", 1, 12, 7, "sd", "diffusion", size=size)
    return root


@pytest.fixture
def config(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    at = tmp_path / "{data}"
    return {
        "name": "tiny",
        "protocol": "conditions",
        "real": [at / "asia", at / "web"],
        "photos": [
            {"name": "asian faces", "source": "asia"},
            {"name": "web faces", "dir": at / "web"},
            {"name": "far faces", "dir": at / "far"},
        ],
        "generators": [
            {"name": "swap", "role": "synthetic", "dir": at / "swap"},
            {"name": "tiny", "role": "synthetic", "dir": at / "tiny"},
            {"name": "stylegan2", "dir": at / "gan"},
            {"name": "diffusion", "role": "unseen", "dir": at / "sd"},
        ],
        "conditions": [
            {"name": "a", "about": "swaps", "fakes": ["swap"]},
            {"name": "both", "fakes": ["swap", "tiny"]},
            {"name": "g", "fakes": ["stylegan2", "tiny"]},
        ],
        "contrasts": [["a", "both"], ["a", "g"]],
        "detectors": [
            {"model": "cnn", "name": "small", "data": "s16"},
            {"model": "cnn", "name": "large", "data": "s32", "only": ["a"], "seeds": [7]},
        ],
        "seeds": [0],
        "train": {"steps": 2, "batch": 8, "eval_every": 2},
        "reencode": {"jpeg": 85},
        "resamples": 100,
        "device": "cpu",
        "quick": {
            "train": {"steps": 1},
            "seeds": [5],
            "detectors": [{"model": "cnn", "data": "s16", "only": ["g", "a"]}],
        },
    }


def scores(out, cell, test):
    file = out / "cells" / cell["key"] / "scores" / f"{test['hash'][:16]}.csv"
    return list(csv.DictReader(file.open()))


def test_fakes_of_photos_that_nothing_trains_on_are_tested_on_their_test_split(config, tmp_path):
    write(tmp_path / "s16" / "pasted", 1, 48, 8, "synth", "pasted", parent="asia")
    new = {"name": "pasted", "role": "synthetic", "dir": tmp_path / "{data}" / "pasted"}
    made = load({**config, "generators": [*config["generators"], new], "detectors": config["detectors"][:1]})
    experiment = Experiment(made, tmp_path / "out")
    found = [s.columns["split"][r] for s, r in experiment.rows["pasted"] if s.columns["label"][r[0]]]
    assert np.concatenate(found).tolist() == ["test"] * 12


def test_strangers_face_each_source_of_photos_apart(config, tmp_path):
    out = run(config, tmp_path / "out")
    facts = json.loads((out / "experiment.json").read_text())
    tests = {t["name"]: t for t in facts["tests"]}
    counts = {name: (t["n_real"], t["n_fake"]) for name, t in tests.items()}
    assert counts == {  # row 3 of 'web' is in one size only; 'far' is not trained on, so all of it is tested
        "swap": (35, 12),
        "tiny": (35, 12),
        "stylegan2": (35, 8),
        "diffusion": (35, 12),
        "stylegan2 against asian faces": (12, 8),
        "stylegan2 against web faces": (11, 8),
        "stylegan2 against far faces": (12, 8),
        "diffusion against asian faces": (12, 12),
        "diffusion against web faces": (11, 12),
        "diffusion against far faces": (12, 12),
    }
    assert [(c["name"], c["tests"]) for c in facts["contrasts"]] == [
        ("both minus a", ["stylegan2", "diffusion"]),
        ("g minus a", ["diffusion"]),
    ]
    assert [(c["name"], c["fakes"], c["synthetic"]) for c in facts["conditions"]] == [
        ("a", [], ["swap"]),
        ("both", [], ["swap", "tiny"]),
        ("g", ["stylegan2"], ["tiny"]),
    ]
    assert ["g", "stylegan2 against far faces"] in facts["seen"]
    assert [(c["detector"], c["condition"], c["seed"]) for c in facts["cells"]] == [
        ("small", "a", 0),
        ("small", "both", 0),
        ("small", "g", 0),
        ("large", "a", 7),
    ]
    assert set(facts["audits"]) == {f"{c}, {d}" for c in ("a", "both", "g") for d in ("s16", "s32")}
    small, large = (scores(out, facts["cells"][k], tests["stylegan2"]) for k in (0, 3))
    assert [line["group"] for line in small] == [line["group"] for line in large]
    assert [line["score"] for line in small] != [line["score"] for line in large]
    Sheet.of(Results(out)).save(tmp_path / "sheet")
    assert verify_sheet(tmp_path / "sheet") == []
    assert "| large | a | 1 |" in (tmp_path / "sheet" / "results.md").read_text()


def test_what_is_judged_was_coded_alike(config, tmp_path):
    out = run({**config, "detectors": config["detectors"][:1]}, tmp_path / "out")
    facts = json.loads((out / "experiment.json").read_text())
    test = next(t for t in facts["tests"] if t["name"] == "diffusion against far faces")
    cell = facts["cells"][0]
    detector = load_detector(out / "cells" / cell["key"] / "run", device="cpu")
    shards = ShardSet(tmp_path / "s16" / "far")
    images = shards.read_many(np.arange(12))
    found = [float(line["score"]) for line in scores(out, cell, test)[:12]]
    assert found == detector.score(perturb(images, "jpeg", 85)).tolist() != detector.score(images).tolist()


def test_an_ensemble_of_conditions_is_the_mean_of_their_calibrated_logits(config, tmp_path):
    config["conditions"].append({"name": "a & g", "ensemble": ["a", "g"]})
    config["contrasts"] = [["a", "a & g"], ["g", "a & g"]]
    small = {**config["detectors"][0], "only": ["g", "a & g", "a"]}
    out = run({**config, "detectors": [small]}, tmp_path / "out")
    facts = json.loads((out / "experiment.json").read_text())
    assert facts["conditions"][-1]["about"] == "the mean of a and g" and not facts["failures"]
    assert ["a & g", "stylegan2"] in facts["seen"] and ["a & g", "swap"] in facts["seen"]
    assert [c["tests"] for c in facts["contrasts"]] == [["diffusion"]] * 2
    test = next(t for t in facts["tests"] if t["name"] == "diffusion")
    cells = {c["condition"]: c for c in facts["cells"]}
    logits = {
        name: logit([float(line["score"]) for line in scores(out, cell, test)])
        for name, cell in cells.items()
    }
    line = np.polyfit(logits["a"] + logits["g"], logits["a & g"], 1)
    assert line[0] > 0 and np.allclose(
        np.polyval(line, logits["a"] + logits["g"]), logits["a & g"], atol=1e-4
    )
    assert not (out / "cells" / cells["a & g"]["key"] / "run" / "checkpoints").exists()


def test_generators_are_drawn_alike_and_own_fakes_half_of_the_time(config, tmp_path):
    filled = load(config).seen_as("s16")
    fakes = {g.name: g.dir for g in filled.generators}
    for given, own, expected in (
        ((), ("swap", "tiny"), {"swap": 8, "tiny": 8}),
        (("stylegan2",), ("swap", "tiny"), {"stylegan2": 8, "swap": 4, "tiny": 4}),
    ):
        folders = [tuple(f for name in names for f in fakes[name]) for names in (given, own)]
        data = TrainingData.open(filled.real, *folders, force=False)
        sampler = Sampler(data, 32, TrainSettings.synthetic_ratio, seed=0)
        drawn: dict[str, int] = {}
        for stratum, position in sampler.places(0, sampler.rng(0)):
            shards, row = stratum.where(position)
            if shards.columns["label"][row]:
                name = str(shards.columns["generator"][row])
                drawn[name] = drawn.get(name, 0) + 1
        assert drawn == expected


def test_a_generator_in_several_folders_is_drawn_no_more_often(config, tmp_path):
    more = write(tmp_path / "s16" / "swap-2", 1, 48, 8, "synth", "swap")
    fakes = tuple(tmp_path / "s16" / name for name in ("swap", "tiny")) + (more,)
    data = TrainingData.open(load(config).seen_as("s16").real, (), fakes, force=False)
    sampler = Sampler(data, 32, TrainSettings.synthetic_ratio, seed=0)
    drawn = [stratum.shards[0].path.name for stratum, _ in sampler.places(3, sampler.rng(3))[16:]]
    assert {name: drawn.count(name) for name in drawn} == {"swap": 4, "swap-2": 4, "tiny": 8}
    amounts = {kind.generator: count for kind, count in sampler.amounts().items() if kind.generator}
    assert amounts["swap"] == amounts["tiny"]


def test_a_source_of_photos_is_left_out_with_the_fakes_made_of_it(config, tmp_path):
    for source in ("asia", "web"):
        for size in (16, 32):
            folder = tmp_path / f"s{size}" / f"swap-{source}"
            with ShardWriter(folder, size=size) as writer:
                for k in range(8):
                    parent = f"{source}/{source}{k}"
                    row = Row(1, "synth", "swap", SPLITS[k % 4], parent, origin=str(k), parent=parent)
                    writer.append(toyface((size, k), size), row)
            Seen().save(folder)
    at = tmp_path / "{data}"
    config["generators"][0]["dir"] = [at / "swap-asia", at / "swap-web"]
    config["conditions"] = [
        {"name": "a", "fakes": ["swap"], "without": ["web faces"], "train": {"steps": 1}},
        {"name": "b", "fakes": ["swap"]},
    ]
    config |= {"contrasts": [["b", "a"]], "detectors": config["detectors"][:1]}
    out = run(config, tmp_path / "out")
    facts = json.loads((out / "experiment.json").read_text())
    used = [
        json.loads((out / "cells" / c["key"] / "cell.json").read_text())["settings"] for c in facts["cells"]
    ]
    s16 = tmp_path / "s16"
    assert used[0]["real"] == [str(s16 / "asia")] and used[0]["synthetic"] == [str(s16 / "swap-asia")]
    assert [u["steps"] for u in used] == [1, 2]
    assert len(used[1]["real"]) == len(used[1]["synthetic"]) == 2
    assert {t["n_real"] for t in facts["tests"] if t["real"] == "web faces"} == {12}
    config["conditions"][0]["without"] = ["asian faces"]
    with pytest.raises(UserError, match="which shares its folder with others"):
        run(config, tmp_path / "other")
    config["generators"][0]["dir"] = mixed = tmp_path / "mixed"
    with ShardWriter(mixed, size=16) as writer:
        for source in ("asia", "web"):
            row = Row(1, "synth", "swap", "train", source, origin=source, parent=f"{source}/{source}0")
            writer.append(toyface((1, 2), 16), row)
    config["conditions"][0]["without"] = ["web faces"]
    with pytest.raises(UserError, match="holds fakes of photos that are left out, and of others"):
        run(config, tmp_path / "third")


def test_native_pictures_are_judged_and_changed_in_their_own_shapes(tmp_path):
    folder = tmp_path / "native"
    with ShardWriter(folder, size=None, attributes={"crop": {"pixels": "native"}}) as writer:
        for k in range(3):
            writer.append(np.full((20 + k, 24, 3), 80 * k, np.uint8), Row(0, "toy", "", "test", str(k)))

    class Detector:
        view = View("native", 16)

        def score(self, images):
            seen.append([image.shape for image in images])
            return np.array([image.mean() for image in images])

    seen: list[list[tuple[int, ...]]] = []
    shards, rows = ShardSet(folder), np.arange(3)
    plain = score_rows(Detector(), shards, rows)
    changed = score_rows(Detector(), shards, rows, ("benign", 1.0), ("jpeg", 85.0), ("crop", 0.5))
    assert seen == [[(20, 24, 3), (21, 24, 3), (22, 24, 3)]] * 2
    assert np.allclose(plain, [0, 80, 160]) and np.allclose(plain, changed, atol=40)
    with pytest.raises(UserError, match="pgd attacks aligned images"):
        score_rows(Detector(), shards, rows, ("pgd", 2.0))


def test_the_plan_lists_the_cells_of_each_detector(config, tmp_path):
    text = plan(load(config), tmp_path / "out", measure=True)
    assert "tiny, conditions: 4 cells:" in text
    assert "small on s16: 3 cells (a; both; g; seeds 0)" in text
    assert "large on s32: 1 cell (a; seeds 7)" in text
    assert "training takes about" in text and "unknown" not in text


def test_a_quick_version(config):
    short = load(config, quick=True)
    assert short.seeds == (5,) and len(short.detectors) == 1
    assert [c.name for c in design(short).conditions] == ["a", "g"], "what no detector trains in is gone"
    assert [c.name for c in design(short).contrasts] == ["g minus a"]
    assert short.train == {"steps": 1, "batch": 8, "eval_every": 2}
    assert load(config).seeds == (0,)
    with pytest.raises(UserError, match="expected a list"):
        load({**config, "quick": {"seeds": "steps"}})
    del config["quick"]
    with pytest.raises(UserError, match="has no quick version"):
        load(config, quick=True)


def test_pictures_in_common_are_those_that_occur_once_in_each(tmp_path):
    small = ShardSet(write(tmp_path / "small", 0, 6, 1))
    large = ShardSet(write(tmp_path / "large", 0, 6, 1, skip=(2,)))
    first, second = in_common([[(small, np.arange(6))], [(large, np.array([4, 3, 2, 1, 0]))]])
    assert names_of(first) == names_of(second) == [f"0 toy/toy{k}" for k in (0, 1, 3, 4, 5)]
    assert [rows.tolist() for _, rows in second] == [[0, 1, 2, 3, 4]]
    twice = [(small, np.array([0, 1])), (small, np.array([1]))]
    assert names_of(in_common([twice, [(small, np.arange(6))]])[0]) == ["0 toy/toy0"]


def test_a_test_that_not_all_data_show_is_left_out_and_said(config, tmp_path):
    config["generators"].append({"name": "late", "role": "unseen", "dir": tmp_path / "{data}" / "late"})
    write(tmp_path / "s16" / "late", 1, 4, 9, "x", "late")
    write(tmp_path / "s32" / "late", 1, 4, 9, "y", "late", size=32)
    facts = json.loads((run(config, tmp_path / "out") / "experiment.json").read_text())
    assert "late" not in {t["fake"] for t in facts["tests"]}
    assert "late is left out: s16 and s32 have no pictures of it in common" in facts["notes"]
    assert [c["name"] for c in facts["contrasts"]] == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"conditions": []}, "there are no conditions"),
        ({"conditions": [{"name": "a", "fakes": []}]}, "condition a has neither fakes nor an ensemble"),
        (
            {"conditions": [{"name": "a", "ensemble": ["b", "c"], "train": {"steps": 1}}]},
            "condition a trains nothing",
        ),
        (
            {"conditions": [{"name": "a", "fakes": ["swap"]}, {"name": "b", "ensemble": ["a", "c"]}]},
            "ensemble of c, which is not trained above it",
        ),
        (
            {"conditions": [{"name": "a", "fakes": ["swap"]}, {"name": "b", "ensemble": ["a", "a"]}]},
            "ensemble of one",
        ),
        (
            {
                "conditions": [{"name": n, "fakes": ["swap"]} for n in "ab"]
                + [{"name": "c", "ensemble": ["a", "b"]}],
                "detectors": [{"model": "cnn", "data": "s16", "only": ["a", "c"]}],
                "contrasts": [],
            },
            "add b to its only",
        ),
        ({"conditions": [{"name": "a", "fakes": ["swop"]}], "contrasts": []}, "did you mean swap"),
        ({"conditions": [{"name": "a", "fakes": ["diffusion"]}], "contrasts": []}, "whose role is unseen"),
        (
            {"conditions": [{"name": "a", "fakes": ["swap"], "train": {"stesp": 1}}], "contrasts": []},
            "did you mean steps",
        ),
        (
            {"conditions": [{"name": "a", "fakes": ["swap"], "without": ["x"]}], "contrasts": []},
            "which is no set of photos",
        ),
        ({"detector_contrasts": [["small", "huge"]]}, "no pair of detectors"),
        ({"contrasts": [["a"]]}, "no pair of conditions"),
        ({"contrasts": [["a", "z"]]}, "no pair of conditions"),
        ({"reencode": {"blur": 1}}, r"reencode is .*give one of \{jpeg: 85\}"),
        ({"reencode": {"jpeg": 5}}, "cannot have the strength 5"),
        ({"detectors": [{"model": "cnn", "only": ["c"]}]}, "condition c only, which there is not"),
        ({"photos": [{"name": "x"}, {"name": "x"}]}, "two sets of pictures are called 'x'"),
        ({"photos": [{"name": "nobody", "source": "nobody"}]}, "lacks reals"),
        ({"protocol": "transfer"}, "means nothing to transfer"),
    ],
)
def test_mistakes_are_one_line(config, change, expected, tmp_path):
    with pytest.raises(UserError, match=expected):
        run({**config, **change}, tmp_path / "out")


def test_another_crop_is_an_error_unless_a_condition_insists(config, tmp_path):
    for name, policy in (("asia", "face"), ("tiny", "none")):
        with ShardWriter(tmp_path / "cut" / name, 16, attributes={"crop": {"policy": policy}}) as writer:
            for k in range(48):
                row = Row(int(name == "tiny"), "toy", name, SPLITS[k % 4], f"{name}{k}", origin=f"{name}{k}")
                writer.append(toyface((k, len(name)), 16), row)
    config |= {"real": [tmp_path / "cut" / "asia"], "photos": [], "detectors": ["cnn"], "contrasts": []}
    config["generators"] = [{"name": "tiny", "role": "synthetic", "dir": tmp_path / "cut" / "tiny"}]
    config["conditions"] = [{"name": "a", "fakes": ["tiny"]}]
    with pytest.raises(UserError, match="were not cut alike"):
        run(config, tmp_path / "out")
    config["conditions"][0]["train"] = {"force": True}
    facts = json.loads((run(config, tmp_path / "forced") / "experiment.json").read_text())
    assert any("were not cut alike" in note for note in facts["notes"]) and not facts["failures"]
