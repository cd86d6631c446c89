"""The protocol on real, tiny parts: fair arms, the firewall, resuming, failures on their own, and the commands."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.datasets.firewall import Seen
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.experiments.cli import demo as demo_command
from crossfake.experiments.cli import experiment as group
from crossfake.experiments.report import figures
from crossfake.experiments.report.results import Results
from crossfake.experiments.report.wording import notes
from crossfake.experiments.run.running import run


def write(folder, label, count, seed, generator="", blur=0, prefix=None):
    """Shards of drawn faces; fakes are drawn coarser, so that there is something to find."""
    with ShardWriter(folder, size=16) as writer:
        for number in range(count):
            image = toyface((seed, number), 16)
            if label:
                image = np.repeat(np.repeat(image[::2, ::2], 2, 0), 2, 1)
            split = ("train", "train", "val", "test")[number % 4]
            writer.append(image, Row(label, "toy", generator, split, f"{prefix or folder.name}:{number}"))
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    write(root / "real", 0, 80, 1)
    write(root / "old", 1, 40, 2, "old-gan")
    write(root / "mine", 1, 40, 3, "my-gan")
    write(root / "new", 1, 20, 4, "new-gan")
    write(root / "elsewhere", 0, 20, 5)
    return root


@pytest.fixture
def parts(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    return {folder.name: tmp_path / folder.name for folder in drawn.iterdir()}


@pytest.fixture
def config(parts):
    return {
        "name": "tiny",
        "protocol": "synthetic-ablation",
        "detectors": ["cnn"],
        "seeds": [0],
        "real": [parts["real"]],
        "generators": [
            {"name": "old", "role": "seen", "dir": parts["old"]},
            {"name": "mine", "role": "synthetic", "dir": parts["mine"]},
            {"name": "new", "role": "unseen", "dir": parts["new"]},
            {"name": "web", "role": "unseen", "dir": parts["new"], "real": parts["elsewhere"]},
        ],
        "train": {"steps": 2, "batch": 8, "eval_every": 2},
        "resamples": 100,
        "device": "cpu",
    }


@pytest.fixture
def trained(monkeypatch):
    """The settings of every training that is run, in order."""
    from crossfake.detect.training import train as training

    seen, train = [], training.train
    monkeypatch.setattr(
        training, "train", lambda settings, **more: (seen.append(settings), train(settings, **more))[1]
    )
    return seen


def facts(out):
    return json.loads((out / "experiment.json").read_text())


def card(cell):
    return json.loads((cell / "cell.json").read_text())


def scores(out, key, test):
    hash_ = next(t["hash"] for t in facts(out)["tests"] if t["name"] == test)
    return [
        line.split(",")
        for line in (out / "cells" / key / "scores" / f"{hash_[:16]}.csv").read_text().split()[1:]
    ]


def test_conditions_differ_in_the_synthetic_fakes_only(config, parts, trained, tmp_path):
    out = run({**config, "seeds": [0, 1]}, tmp_path / "out")
    assert [(s.seed, len(s.synthetic)) for s in trained] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for without, with_ in zip(trained[::2], trained[1::2], strict=True):
        ours = {key: value for key, value in vars(without).items() if key not in ("synthetic", "out")}
        assert ours == {key: value for key, value in vars(with_).items() if key not in ("synthetic", "out")}
        assert with_.synthetic == (parts["mine"],) and without.fake == (parts["old"],)
        assert without.stop_after == 2, "early stopping would change a second thing"
    found = facts(out)
    assert [(t["name"], t["fake"], t["real"], t["n_real"], t["n_fake"]) for t in found["tests"]] == [
        ("old", "old", "real", 20, 10),
        ("mine", "mine", "real", 20, 10),
        ("new", "new", "real", 20, 20),
        ("web", "web", "web", 20, 20),
    ]
    assert found["seen"] == [["without", "old"], ["with", "old"], ["with", "mine"]]
    lines = scores(out, found["cells"][0]["key"], "new")
    assert [line[1] for line in lines] == ["0"] * 20 + ["1"] * 20
    real = ShardSet(parts["real"])
    assert {line[2] for line in lines[:20]} == set(real.columns["group"][real.select(split="test")])


def test_fakes_of_one_generator_may_lie_in_a_folder_for_each_split(config, trained, tmp_path):
    folders = []
    for split in ("train", "val", "test"):
        folders.append(tmp_path / f"swap-{split}")
        with ShardWriter(folders[-1], size=16) as writer:
            for k in range(8):
                writer.append(toyface((9, len(folders), k), 16), Row(1, "toy", "swap", split, f"{split}{k}"))
    config["generators"][0] = {"name": "old", "role": "seen", "dir": folders}
    out = run(config, tmp_path / "out")
    assert trained[0].fake == tuple(folders[:2])
    assert [t["n_fake"] for t in facts(out)["tests"] if t["name"] == "old"] == [8]


def test_scores_are_those_of_the_bundle(config, parts, tmp_path):
    from crossfake.detect.bundle.bundle import load as load_detector

    out = run(config, tmp_path / "out")
    key = facts(out)["cells"][0]["key"]
    detector = load_detector(out / "cells" / key / "run")
    fakes = ShardSet(parts["new"])
    ours = [float(line[3]) for line in scores(out, key, "new")[20:]]
    assert ours == pytest.approx(detector.score(fakes.read_many(range(20))), abs=1e-12)


def test_perturbed_tests(config, parts, tmp_path, monkeypatch):
    from crossfake.detect.bundle.bundle import Detector
    from crossfake.detect.bundle.bundle import load as load_detector
    from crossfake.experiments.design.perturbations import perturb

    # the network sees as many pictures at once as there are, not 128
    monkeypatch.setattr(Detector, "batch", 20)
    out = run({**config, "perturbations": {"jpeg": [30], "pgd": [4]}}, tmp_path / "out")
    key = facts(out)["cells"][0]["key"]
    detector = load_detector(out / "cells" / key / "run")
    images = perturb(ShardSet(parts["new"]).read_many(range(20)), "jpeg", 30.0)
    ours = [float(line[3]) for line in scores(out, key, "new, jpeg 30")[20:]]
    assert ours == pytest.approx(detector.score(images), abs=1e-12)
    plain, attacked = ([float(line[3]) for line in scores(out, key, name)] for name in ("new", "new, pgd 4"))
    assert np.mean(attacked[20:]) < np.mean(plain[20:]) and np.mean(attacked[:20]) > np.mean(plain[:20])


def test_finished_cells_are_not_run_again(config, trained, tmp_path):
    out = run(config, tmp_path / "out")
    assert len(trained) == 2
    shutil.rmtree(next((out / "cells").iterdir()))
    run(config, out)
    assert len(trained) == 3
    run({**config, "seeds": [0, 1]}, out)
    assert len(trained) == 5
    run({**config, "train": {**config["train"], "steps": 3}}, out)
    assert len(trained) == 7
    assert len(facts(out)["cells"]) == 2, "those of the configuration that was run last"


def test_a_published_detector_is_tested_and_not_trained(config, trained, tmp_path):
    from crossfake.detect.bundle.bundle import load as load_detector

    bundle = published_bundle(tmp_path)
    out = run(
        {**config, "detectors": [{"bundle": str(bundle), "name": "theirs"}], "seeds": [0, 1]},
        tmp_path / "out",
    )
    assert not trained
    cells = facts(out)["cells"]
    assert [(c["detector"], c["condition"], c["seed"]) for c in cells] == [("theirs", "elsewhere", 0)]
    card = json.loads((out / "cells" / cells[0]["key"] / "cell.json").read_text())
    assert (
        card["given"]
        and card["learned_from"] == ["d"]
        and card["model_hash"] == load_detector(bundle, device="cpu").hash
    )
    assert any("known by name only" in text for text in facts(out)["firewall"]["unchecked"])


def published_bundle(folder):
    """A tiny detector of somebody else's."""
    import torch
    from safetensors.torch import save_file

    from crossfake.detect.importing.importer import import_detector
    from crossfake.detect.models import create_model

    torch.manual_seed(0)
    network = create_model("published", options={"architecture": "test_resnet"})
    save_file(network.state_dict(), folder / "w.safetensors")
    (folder / "t.yaml").write_text(
        "tiny:\n  paper: p\n  licence: l\n  weights: w\n  trained_on: [d]\n  model: published\n"
        "  sees: {looks_at: picture, resize: 32, squeeze: true}\n  options: {architecture: test_resnet}\n"
    )
    return import_detector(folder / "w.safetensors", "tiny", folder / "tiny", folder / "t.yaml")


def test_another_test_is_scored_without_training_anew(config, trained, tmp_path):
    out = run(config, tmp_path / "out")
    cell = out / "cells" / facts(out)["cells"][0]["key"]
    then = cell / "run" / "environment.json"
    then.write_text(json.dumps(json.loads(then.read_text()) | {"git_commit": "0123abc"}))
    run({**config, "perturbations": {"blur": [1]}}, out)
    assert len(trained) == 2
    assert len(list((cell / "scores").iterdir())) == 7
    assert json.loads((cell / "cell.json").read_text())["commit"] == "0123abc", "of the training"


def test_experiments_share_a_cache(config, trained, tmp_path):
    shared = {**config, "cache": tmp_path / "cells"}
    run(shared, tmp_path / "one")
    more = [*config["generators"], {"name": "other", "role": "unseen", "dir": config["generators"][2]["dir"]}]
    run({**shared, "name": "two", "generators": more}, tmp_path / "two")
    assert len(trained) == 2 and not (tmp_path / "two" / "cells").exists()


def test_other_data_makes_other_cells(config, parts, trained, tmp_path):
    out = run(config, tmp_path / "out")
    shutil.rmtree(parts["mine"])
    write(parts["mine"], 1, 40, 33, "my-gan")
    run(config, out)
    assert [len(s.synthetic) for s in trained[2:]] == [1], "the condition without them knows nothing of it"


def test_a_killed_training_goes_on(config, trained, tmp_path, monkeypatch):
    """What a kill leaves: checkpoints, and no finished run."""
    small = {**config, "train": {"steps": 4, "batch": 8, "eval_every": 2}}
    out = run(small, tmp_path / "out")
    cell = out / "cells" / facts(out)["cells"][0]["key"]
    before = scores(out, cell.name, "new")
    assert json.loads((cell / "spent.json").read_text())["seconds"] == card(cell)["seconds"] > 0
    shutil.rmtree(cell / "scores")
    (cell / "cell.json").unlink()
    (cell / "run" / "finished.json").unlink()
    (cell / "spent.json").write_text('{"seconds": 1000.0, "energy": null}')
    run(small, out)
    assert trained[-1].resume and scores(out, cell.name, "new") == before
    assert card(cell)["seconds"] > 1000, "all attempts count"


def test_a_failing_cell_does_not_stop_the_others(config, monkeypatch, tmp_path):
    from crossfake.detect.training import train as training

    train = training.train

    def failing(settings, **more):
        if settings.seed == 0 and settings.synthetic:
            raise RuntimeError("out of luck\nand more")
        return train(settings, **more)

    monkeypatch.setattr(training, "train", failing)
    out = run(config, tmp_path / "out")
    (failure,) = facts(out)["failures"]
    assert (failure["condition"], failure["seed"], failure["error"]) == (
        "with",
        0,
        "RuntimeError: out of luck",
    )
    monkeypatch.setattr(training, "train", train)
    run(config, out)
    assert facts(out)["failures"] == []


def test_when_all_cells_fail_the_first_reason_is_given(config, tmp_path):
    with pytest.raises(UserError, match="no detector could be trained.*no_such_model"):
        run({**config, "detectors": ["no_such_model"]}, tmp_path / "out")


def test_fakes_of_one_generator_under_two_names_are_seen_by_both(config, parts, tmp_path):
    """As of one model at two truncations: the one is no unseen test of the other."""
    psi = write(tmp_path / "psi", 1, 40, 7, "my-gan")
    config["generators"][3] = {"name": "psi", "role": "synthetic", "dir": psi}
    from crossfake.experiments.design.config import load
    from crossfake.experiments.run.running import (
        Experiment,
    )

    (tmp_path / "out").mkdir()
    found = Experiment(load({**config, "protocol": "mixture"}), tmp_path / "out").seen
    assert {("with psi", "mine"), ("with mine", "psi")} <= set(found)
    assert not {("without", "mine"), ("with psi", "new")} & set(found)


@pytest.mark.parametrize(
    ("dims", "axis"),
    [((768, 768), "FID (768-d, not comparable with FID)"), ((2048, 2048), "FID"), ((768, 2048), "sliced")],
)
def test_a_mixtures_axis_is_called_by_its_features(config, parts, tmp_path, dims, axis):
    """Two figures in other features share no axis: then it is another figure that all have."""
    from crossfake.experiments.design.config import load
    from crossfake.experiments.run.running import (
        Experiment,
    )

    psi = write(tmp_path / "psi", 1, 40, 7, "their-gan")
    config["generators"][3] = {"name": "psi", "role": "synthetic", "dir": psi}
    for folder, each in zip((parts["mine"], psi), dims, strict=True):
        details = {"fid": {"value": 2.0, "dims": each}, "swd": {"value": 5.0}}
        quality = {"n_real": 9, "n_fake": 9, "fid": 2.0, "swd": 5.0, "details": details}
        (folder / "quality.json").write_text(json.dumps(quality))
    (tmp_path / "out").mkdir()
    experiment = Experiment(load({**config, "protocol": "mixture"}), tmp_path / "out")
    entries, found = experiment._conditions()
    assert found[0].startswith(axis) and found[0].endswith(" of the training fakes")
    assert [entry["x"] for entry in entries if len(entry["synthetic"]) == 1] == 2 * [
        5.0 if axis == "sliced" else 2.0
    ]


def test_a_dose_of_more_than_there_is_says_so(config, tmp_path):
    from crossfake.experiments.design.config import load
    from crossfake.experiments.run.running import (
        Experiment,
    )

    (tmp_path / "out").mkdir()
    doses = {**config, "protocol": "dose-response", "doses": [0, 10, 5000]}
    found = Experiment(load(doses), tmp_path / "out").facts({}, [])
    assert [c["x"] for c in found["conditions"]] == [0.0, 10.0, 20.0]
    assert found["notes"] == ["Condition 5,000 has no more than 20 of one's own fakes to train on."]


def test_cells_with_the_same_data_are_trained_once(config, trained, tmp_path):
    out = run({**config, "detectors": ["cnn", {"model": "cnn", "name": "twin"}]}, tmp_path / "out")
    assert len(trained) == 2 and len(facts(out)["cells"]) == 4


def test_two_experiments_wait_for_each_other_at_a_cell(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from crossfake.experiments.run.cells import _alone

    def enter():
        with _alone(tmp_path / "cell"):
            return (tmp_path / "done").exists()

    with ThreadPoolExecutor(1) as pool:
        with _alone(tmp_path / "cell"):
            second = pool.submit(enter)
            (tmp_path / "done").touch()
        assert second.result()


def leak_person(parts):
    shutil.rmtree(parts["elsewhere"])
    write(parts["elsewhere"], 0, 20, 5, prefix="real")


def leak_picture(parts):
    shutil.rmtree(parts["elsewhere"])
    write(parts["elsewhere"], 0, 20, 1)


def leak_to_generator(parts):
    real = ShardSet(parts["real"])
    Seen.of(real, real.select(split="test")).save(parts["mine"])


def leak_generator(parts):
    shutil.rmtree(parts["new"])
    write(parts["new"], 1, 20, 4, "my-gan")


@pytest.mark.parametrize(
    ("leak", "expected"),
    [
        (leak_person, "test web: group 'real:0' of .*elsewhere was trained on"),
        (leak_picture, "test web: image 0 of .*elsewhere was trained on: it is image 0 of .*real"),
        (leak_to_generator, "test .*: group 'real:11' of .*real was trained on by generator my-gan"),
        (leak_generator, "test new is of my-gan, which 'with' trains on"),
    ],
)
def test_the_firewall(config, parts, trained, tmp_path, leak, expected):
    leak(parts)
    with pytest.raises(UserError, match=expected):
        run(config, tmp_path / "out")
    assert not trained


def test_own_fakes_of_unknown_origin_are_refused_or_told(config, parts, tmp_path):
    shutil.copytree(parts["mine"], tmp_path / "own")
    with h5py.File(tmp_path / "own" / "00000.h5", "r+") as file:
        file["source"][:] = b"synth"
    config["generators"][1]["dir"] = tmp_path / "own"
    with pytest.raises(
        UserError, match="own holds own fakes, and what their generator learned from is unknown"
    ):
        run(config, tmp_path / "out")
    config["train"]["force"] = True
    told = (
        "own holds own fakes, and what their generator learned from is unknown: overlap with it is unchecked"
    )
    out = run(config, tmp_path / "forced")
    assert told in facts(out)["notes"][-1] and told in facts(out)["firewall"]["unchecked"][0]
    said = " ".join(notes(Results(out), []))
    assert told in said and "own generators learned from" not in said


@pytest.mark.parametrize(("size", "crop"), [(32, None), (16, {"policy": "face"})])
def test_pictures_cut_otherwise_are_refused(config, parts, trained, tmp_path, size, crop):
    for name, label, policy in (("real", 0, {"policy": "none"}), ("elsewhere", 0, crop)):
        shutil.rmtree(parts[name])
        with ShardWriter(
            parts[name], size=16 if name == "real" else size, attributes={"crop": policy}
        ) as writer:
            for number in range(8):
                image = toyface((number, label), writer.size)
                split = ("train", "val", "test", "test")[number % 4]
                writer.append(image, Row(label, "toy", split=split, group=f"{name}:{number}"))
    with pytest.raises(UserError, match="elsewhere and .*real were not cut alike"):
        run(config, tmp_path / "out")
    assert not trained


def test_a_crc_alone_is_no_leak(config, parts, tmp_path, monkeypatch):
    """Two different pictures may share a CRC; only equal pixels are a leak."""
    read = ShardSet.__init__

    def colliding(self, path):
        read(self, path)
        self.columns["crc32"] = np.zeros(len(self), np.uint32)

    monkeypatch.setattr(ShardSet, "__init__", colliding)
    run(config, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train": {"stepz": 3}}, r"train\.stepz: there is no such key: did you mean steps"),
        ({"train": {"seed": 3}}, "settings of cnn: seed follows from the protocol"),
        ({"quality": {"metrics": ["fad"]}}, "fad is unknown"),
        (
            {"generators": [{"name": "g", "family": "dcgan", "n": 4, "train": {"kimgs": 1}}]},
            r"generators\[0\]\.train\.kimgs: there is no such key: did you mean kimg",
        ),
        (
            {"generators": [{"name": "g", "family": "stylegan9", "n": 4}]},
            r"generators\[0\]: there is no family 'stylegan9'",
        ),
        ({"published": "wang2021"}, "wang2020"),
        ({"protocol": "transfr"}, "did you mean 'transfer'"),
        ({"prepare": {"source": "toyfaces"}}, "toyfaces never ends"),
        ({"prepare": {"sorce": "toyfaces"}}, r"prepare\.sorce: there is no such key: did you mean source"),
    ],
)
def test_wrong_settings_are_found_before_anything_is_made(config, tmp_path, change, expected):
    with pytest.raises(UserError, match=expected):
        run({**config, **change}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reals_without_a_test_split(config, parts, tmp_path):
    with ShardWriter(tmp_path / "flat", size=16) as writer:
        writer.append(toyface(0, 16), Row(0, "toy", split="train", group="a"))
    with pytest.raises(UserError, match="the test old lacks reals"):
        run({**config, "real": [tmp_path / "flat"]}, tmp_path / "out")


def test_the_smoke_demo_and_the_commands(tmp_path, monkeypatch):
    """The whole loop, generators included, as CI runs it."""
    runner = CliRunner()
    out = tmp_path / "smoke"
    done = runner.invoke(demo_command, ["--smoke", "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0 and "DRAWN" in done.output and done.output.rstrip().endswith("report.html")
    page = (out / "report.html").read_text()
    assert "drawn faces" in page
    found = facts(out)
    assert [(pool["name"], pool["role"]) for pool in found["pools"]] == [
        ("real", "real"),
        ("face-splices", "seen"),
        ("stylegan2", "synthetic"),
        ("dcgan", "unseen"),
    ]
    assert [pool["kimg"] for pool in found["pools"][:3]] == [None, None, pytest.approx(0.2)]
    assert re.search(r"<h1>Training on stylegan2 fakes .*, with fakes of 0.2 kimg", page)
    assert found["pools"][3]["quality"]["swd"] > 0 and "train stylegan2" in found["seconds"]
    before = {path: path.stat().st_mtime_ns for path in out.glob("generators/*/*.h5")}
    monkeypatch.setattr(figures, "write_figures", lambda *_: None)  # they are drawn, and take seconds
    again = runner.invoke(demo_command, ["--smoke", "--out", str(out)], catch_exceptions=False)
    assert "2 of 2 cells are there already" in again.output + again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("generators/*/*.h5")}

    (out / "report.html").unlink()
    assert runner.invoke(group, ["report", str(out)], catch_exceptions=False).exit_code == 0
    assert (out / "report.html").exists()
    listed = runner.invoke(group, ["list"], catch_exceptions=False).output
    assert re.search(r"^  leave-one-out +train on all", listed, re.M)
    assert "  demo " in listed and "  photos " in listed and max(map(len, listed.splitlines())) <= 100
    dry = runner.invoke(group, ["run", "demo", "--dry-run"], catch_exceptions=False)
    assert "12 cells = 2 detectors × 2 conditions × 3 seeds" in dry.output and "made first:" in dry.output
    assert runner.invoke(group, ["verify", str(out)], catch_exceptions=False).exit_code == 0


def test_an_unknown_configuration_is_one_line():
    result = CliRunner().invoke(group, ["run", "nowhere"])
    assert result.exit_code == 2
    assert "there is no configuration nowhere: name a YAML file, or one of chronological" in result.output
