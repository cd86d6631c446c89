import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.detect.evaluation import metrics
from crossfake.detect.settings import TuneSettings
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.tuning import final as tuning_final
from crossfake.detect.tuning import trials as tuning_trials
from crossfake.detect.tuning import tune as tuning
from crossfake.detect.tuning.final import compare
from crossfake.detect.tuning.space import parse_space
from crossfake.detect.tuning.tune import format_comparison, format_trials, resumed, tune
from crossfake.errors import UserError
from crossfake.runs import Run, newest_run
from crossfake.stats import ranking

from ..conftest import make_shards

pytest.importorskip("optuna")

SPACE = "lr: {low: 1e-4, high: 1e-1, log: true}\naugment: [0.0, 0.5]\n"
_PICTURES, _IMPORTANCE = tuning._pictures, tuning._importance
Hook = Callable[[int, dict[str, float]], None]


class Stub:
    """Stands for ``train``: AP is best at lr 1e-2 and rises with the steps; its scores follow the AP."""

    def __init__(self) -> None:
        self.seen: list[TrainSettings] = []
        self.hurt: Callable[[TrainSettings], Any] = lambda settings: None
        self.weighed: Callable[[TrainSettings | None], Any] = lambda weigh_as: None

    def __call__(
        self,
        settings: TrainSettings,
        on_validation: Hook | None = None,
        weigh_as: TrainSettings | None = None,
    ) -> Path:
        self.seen.append(settings)
        self.weighed(weigh_as)
        print("said by the training")
        run = Run.create(settings.out, dataclasses.asdict(settings), kind="detect", resume=settings.resume)
        if self.hurt(settings) == "stop":
            return run.path
        ap = 0.9 - 0.1 * abs(np.log10(settings.lr) + 2) - 0.05 * settings.augment
        for step in range(settings.eval_every, settings.steps + 1, settings.eval_every):
            if on_validation:
                on_validation(step, {"val_ap": ap * step / settings.steps, "val_auc": 0.5})
        (run.model / "bundle.json").write_text(
            json.dumps(
                {"validation_ap": ap, "step": settings.steps, "validation_hash": "v", "data_hashes": {}}
            )
        )
        run.finish()
        return run.path


class FakeDetector:
    def score(self, images: Any) -> Any:
        return np.random.default_rng(0).random(len(images))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr(tuning_trials, "train", stub)
    monkeypatch.setattr(tuning_final, "train", stub)
    monkeypatch.setattr("crossfake.detect.bundle.bundle.load", lambda *_: FakeDetector())
    monkeypatch.setattr(tuning, "_pictures", lambda *_: None)
    monkeypatch.setattr(tuning, "_importance", lambda *_: {})
    monkeypatch.setattr("crossfake.runs.environment", dict)
    return stub


@pytest.fixture
def told_in_full(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """With the pictures and importances, which take a second each time."""
    monkeypatch.setattr(tuning, "_pictures", _PICTURES)
    monkeypatch.setattr(tuning, "_importance", _IMPORTANCE)
    return stub


@pytest.fixture
def settings(real: Path, fake: Path, tmp_path: Path) -> TuneSettings:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE)
    base = TrainSettings((real,), tmp_path / "tune", (fake,), steps=40, eval_every=10, batch=16, device="cpu")
    return TuneSettings(base, file, trials=6, bootstrap=20)


def changed(settings: TuneSettings, out: Path | None = None, **values: Any) -> TuneSettings:
    base = dataclasses.replace(settings.base, out=out or settings.base.out)
    return dataclasses.replace(settings, base=base, **values)


def rates(result: dict[str, Any]) -> list[float]:
    return [trial["params"]["lr"] for trial in result["trials"]]


@pytest.mark.parametrize(("method", "sampler"), [("bayes", "tpe"), ("bayes", "gp"), ("random", "tpe")])
def test_search_finds_the_better_and_trains_it_anew(
    settings: TuneSettings, stub: Stub, method: Any, sampler: Any
) -> None:
    trials = 10 if sampler == "gp" else 14
    result = tune(
        changed(settings, method=method, sampler=sampler, trials=trials, pruner="none", trial_steps=20)
    )
    assert [trial["number"] for trial in result["trials"]] == list(range(trials))
    assert result["trials"][0]["params"] == {"lr": 1e-3, "augment": 0.5}  # the default is tried first
    best = result["best"]
    assert best["value"] == max(t["value"] for t in result["trials"]) > 0.85
    assert {s.steps for s in stub.seen[:-2]} == {20} and {s.seed for s in stub.seen[:-2]} == {0}
    default, final = stub.seen[-2:]
    assert (default.lr, default.augment) == (1e-3, 0.5)
    assert (final.lr, final.augment) == (best["params"]["lr"], best["params"]["augment"])
    assert (default.seed, final.seed, default.steps, final.steps) == (1, 1, 40, 40)
    assert newest_run("detect", settings.base.out) == settings.base.out / "best"
    assert Run(settings.base.out).finished


def test_study_json_and_pictures_tell_all(settings: TuneSettings, told_in_full: Stub) -> None:
    result = tune(changed(settings, method="random", trials=12, pruner="none"))
    out = settings.base.out
    told = json.loads((out / "study.json").read_text())
    assert told["best"]["number"] == result["best"]["number"]
    assert set(told["data_hashes"]) == {str(settings.base.real[0]), str(settings.base.fake[0])}
    for trial in told["trials"]:
        assert trial["settings"]["lr"] == trial["params"]["lr"]
        assert trial["seed"] == 0 and trial["seconds"] >= 0
        assert trial["validation_hash"] and "data_hashes" in trial
    assert told["importance"]["lr"] > told["importance"]["augment"]
    assert sum(told["importance"].values()) == pytest.approx(1)
    assert told["comparison"]["note"].startswith("optimistic")
    assert (out / "trials" / "0000" / "output.txt").read_text() == "said by the training\n"
    assert not list(out.glob("trials/*/model")) and not list(out.glob("trials/*/finished.json"))
    for name in ("history", "parallel", "importance"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 300
    table = format_trials(result)
    assert table.splitlines()[1].split()[0] == str(result["best"]["number"])
    assert "optimistic" in format_comparison(result["comparison"])


def test_grid_visits_every_point_once(settings: TuneSettings, stub: Stub) -> None:
    result = tune(changed(settings, method="grid", trials=0, pruner="none"))
    points = {(round(np.log10(t["params"]["lr"]), 6), t["params"]["augment"]) for t in result["trials"]}
    assert points == {(rate, p) for rate in (-4, -2.5, -1) for p in (0.0, 0.5)}
    assert len(result["trials"]) == 6


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_poor_trials_end_early(settings: TuneSettings, stub: Stub, pruner: Any) -> None:
    result = tune(changed(settings, method="random", trials=14, pruner=pruner))
    pruned = [trial for trial in result["trials"] if trial["state"] == "pruned"]
    complete = [trial for trial in result["trials"] if trial["state"] == "complete"]
    assert pruned and complete
    assert all(trial["step"] < 40 for trial in pruned)
    assert result["best"] in complete
    assert f"{len(pruned)} pruned" in format_trials(result)


def test_failures_are_isolated_and_listed(settings: TuneSettings, stub: Stub) -> None:
    def hurt(s: TrainSettings) -> None:
        if len(stub.seen) == 2:
            raise UserError("the loss is not finite")
        if len(stub.seen) == 3:
            raise RuntimeError("out of memory\nat length")

    stub.hurt = hurt
    result = tune(settings)
    assert [t["state"] for t in result["trials"]].count("failed") == 2
    assert result["trials"][1]["reason"] == "the loss is not finite"
    assert result["trials"][2]["reason"] == "RuntimeError: out of memory"
    assert "Traceback" in (settings.base.out / "trials" / "0002" / "output.txt").read_text()
    assert "trial 2 failed: RuntimeError: out of memory" in format_trials(result)
    assert result["comparison"]


def test_when_every_trial_fails_the_search_ends_soon(settings: TuneSettings, stub: Stub) -> None:
    def hurt(s: TrainSettings) -> None:
        raise RuntimeError("no kernel")

    stub.hurt = hurt
    with pytest.raises(UserError, match="no trial succeeded .RuntimeError: no kernel"):
        tune(changed(settings, trials=50))
    assert len(stub.seen) == 5


@pytest.mark.parametrize("method", ["random", "bayes", "grid"])
def test_a_stopped_search_proposes_what_an_unstopped_one_does(
    settings: TuneSettings, stub: Stub, tmp_path: Path, method: Any
) -> None:
    straight = tune(changed(settings, tmp_path / "straight", method=method))
    stub.seen.clear()
    stub.hurt = lambda s: "stop" if len(stub.seen) == 3 else None
    broken = tune(changed(settings, method=method))
    assert broken["comparison"] is None and len(broken["trials"]) == 2
    with open(settings.base.out / "study.journal", "ab") as file:
        file.write(b'{"op_code": 9, "wor')  # what a power cut leaves
    (settings.base.out / "ask.lock").touch()
    again = tune(resumed(settings.base.out))
    assert sorted(rates(again)) == sorted(rates(straight))
    assert again["best"]["params"] == straight["best"]["params"]
    assert again["comparison"] is not None


def test_a_killed_trial_is_tried_again_but_not_for_ever(settings: TuneSettings, stub: Stub) -> None:
    class Killed(BaseException):
        pass

    def hurt(s: TrainSettings) -> None:
        if s.augment == 0.5:
            raise Killed

    stub.hurt = hurt
    for _ in range(3):
        with pytest.raises(Killed):
            tune(changed(settings, trials=1))
    result = None
    with pytest.raises(UserError, match="no trial succeeded .its process was killed"):
        tune(changed(settings, trials=1))
    assert result is None and len(stub.seen) == 3


def test_more_trials_extend_a_search_and_nothing_is_trained_twice(settings: TuneSettings, stub: Stub) -> None:
    first = tune(changed(settings, trials=4))
    count = len(stub.seen)
    assert tune(changed(settings, trials=4))["trials"] == first["trials"]
    assert len(stub.seen) == count
    more = tune(changed(settings, trials=7))
    assert len(more["trials"]) == 7 and more["trials"][:4] == first["trials"]


def test_equal_settings_are_not_trained_again(settings: TuneSettings, stub: Stub) -> None:
    settings.space.write_text("augment: [0.0, 0.5]\n")
    result = tune(changed(settings, trials=6))
    assert len({s.augment for s in stub.seen if "trials" in s.out.parts}) == 2
    assert sum("trials" in s.out.parts for s in stub.seen) == 2
    assert sum(trial["same_as"] is not None for trial in result["trials"]) == 4


def test_fixed_settings_hold_for_all(settings: TuneSettings, stub: Stub) -> None:
    settings.space.write_text("lr: [1e-3, 1e-2]\nweight_decay: 0.2\n")
    tune(settings)
    assert {s.weight_decay for s in stub.seen} == {0.2}


def test_no_trial_begins_after_the_minutes(settings: TuneSettings, stub: Stub) -> None:
    import time

    stub.hurt = lambda s: time.sleep(0.02)
    result = tune(changed(settings, trials=500, minutes=0.002))
    assert 1 <= len(result["trials"]) < 500
    assert result["comparison"] is not None


def test_another_search_is_not_continued(settings: TuneSettings, stub: Stub, tmp_path: Path) -> None:
    tune(changed(settings, trials=2))
    for other in (
        changed(settings, method="random"),
        dataclasses.replace(settings, base=dataclasses.replace(settings.base, lr=0.5)),
    ):
        with pytest.raises(UserError, match="began with another"):
            tune(other)
    settings.space.write_text("lr: [0.1, 0.2]\n")
    with pytest.raises(UserError, match="began with another space"):
        tune(settings)
    trained = Run.create(tmp_path / "trained", {}, kind="detect").path
    with pytest.raises(UserError, match="run of another kind"):
        tune(changed(settings, trained))
    with pytest.raises(UserError, match="no search to resume"):
        resumed(trained)


def test_all_trials_are_weighed_alike(settings: TuneSettings, stub: Stub, tmp_path: Path) -> None:
    """Whatever share of own fakes a trial trains with: else it would choose what it is measured on."""
    own = make_shards(tmp_path / "own", 1, 200, seed=5, split="train")
    settings.space.write_text("synthetic_ratio: [0.0, 0.25, 1.0]\n")
    base = dataclasses.replace(settings.base, synthetic=(own,))
    seen: list[Any] = []
    stub.weighed = lambda weigh_as: seen.append(weigh_as)
    result = tune(dataclasses.replace(settings, base=base, method="grid", trials=0, pruner="none"))
    assert len(seen) >= 4 and {weigh_as.synthetic_ratio for weigh_as in seen} == {0.5}
    assert len({trial["params"]["synthetic_ratio"] for trial in result["trials"]}) == 3
    shares = {part["kind"]: part["share"] for part in result["validation_shares"]}
    assert shares == {"real": 0.5, "fake": 0.25, "synthetic": 0.25}


def test_a_search_begun_without_weights_is_not_continued(settings: TuneSettings, stub: Stub) -> None:
    tune(changed(settings, trials=1))
    run = Run(settings.base.out)
    config = {k: v for k, v in run.config.items() if k not in ("kind", "validation_shares")}
    Run.create(run.path, config, kind="tune", resume=True)
    with pytest.raises(
        UserError, match="began when every validation image counted alike.*: name another --out"
    ):
        tune(resumed(run.path, trials=2))


def test_a_comparison_counts_images_by_their_weights() -> None:
    rng = np.random.default_rng(2)
    labels, times = rng.integers(0, 2, 200), rng.integers(0, 3, 200)
    default, tuned = rng.normal(labels, 2.0), rng.normal(labels, 1.0)
    found = compare(labels, np.arange(200), default, tuned, resamples=200, sample_weight=times)
    for name, scores in (("default", default), ("tuned", tuned)):
        exact = ranking.average_precision(labels.repeat(times), scores.repeat(times))
        assert found[name]["ap"]["value"] == pytest.approx(exact)
        assert found[name]["ap"]["low"] < exact < found[name]["ap"]["high"]


def test_two_searches_in_one_folder(settings: TuneSettings, stub: Stub) -> None:
    def hurt(s: TrainSettings) -> None:
        with pytest.raises(UserError, match="another 'detect tune' is at work"):
            tune(settings)

    stub.hurt = hurt
    tune(changed(settings, trials=1))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "magic"}, "no method 'magic'"),
        ({"pruner": "all"}, "no pruner 'all'"),
        ({"workers": -1}, "--workers -1 is out of range"),
        ({"minutes": 0.0}, "--minutes 0.0 is out of range"),
        ({"trial_steps": 41}, "longer than the final training"),
    ],
)
def test_bad_settings(settings: TuneSettings, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(settings, **values)


def test_steps_come_from_one_place(settings: TuneSettings, stub: Stub) -> None:
    settings.space.write_text("steps: [20, 40]\n")
    with pytest.raises(UserError, match="both --trial-steps and the space"):
        tune(changed(settings, trial_steps=10))


def test_not_under_torchrun(settings: TuneSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        tune(settings)


def test_optuna_missing(settings: TuneSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"\.\[tune\]"):
        tune(settings)


def test_compare_is_the_bootstrap_of_each_and_pairs_the_difference() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    groups = np.arange(200) // 2
    default, tuned = rng.normal(labels, 2.0), rng.normal(labels, 1.0)
    found = compare(labels, groups, default, tuned, resamples=2000, seed=5)
    alone = metrics.intervals(labels, tuned, groups, resamples=2000, seed=6)
    interval = (found["tuned"]["ap"]["low"], found["tuned"]["ap"]["high"])
    assert interval == pytest.approx(alone["ap"], abs=0.01)
    width = found["difference"]["ap"]["high"] - found["difference"]["ap"]["low"]
    assert 0.02 < width < 0.4
    assert found["difference"]["auc"]["value"] == pytest.approx(
        ranking.auc(labels, tuned) - ranking.auc(labels, default)
    )
    same = compare(labels, groups, default, default, resamples=50)["difference"]["ap"]
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_test_rows_are_never_read(
    settings: TuneSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A whole search with real trainings, in which opening a test image would raise."""
    read: set[str] = set()
    stored = ShardSet.stored

    def watched(shards: ShardSet, index: int) -> Any:
        split = str(shards.columns["split"][index])
        assert split != "test", f"test row {index} of {shards.path} was read"
        read.add(split)
        return stored(shards, index)

    monkeypatch.setattr(ShardSet, "stored", watched)
    monkeypatch.setenv(
        "XDG_CACHE_HOME", str(tmp_path)
    )  # the audit reads too, and is not to come from a cache
    assert (ShardSet(settings.base.real[0]).columns["split"] == "test").any()
    base = dataclasses.replace(settings.base, steps=4, eval_every=2, augment=0.0)
    settings.space.write_text("lr: [3e-3, 1e-7]\n")
    result = tune(dataclasses.replace(settings, base=base, method="grid", trials=0, pruner="none"))
    assert read == {"train", "val"}
    assert [trial["state"] for trial in result["trials"]] == ["complete", "complete"]
    # the choice is the one with the highest validation figure, and comes with the hash of what it was made on
    values = {trial["params"]["lr"]: max(trial["validation"].values()) for trial in result["trials"]}
    assert result["best"]["params"]["lr"] == max(values, key=lambda rate: values[rate])
    # what is chosen by is of float32, as bundles score; the curve of a training may be of bfloat16
    assert result["best"]["value"] == pytest.approx(max(values.values()), abs=0.01)
    card = json.loads((settings.base.out / "best" / "model" / "bundle.json").read_text())
    assert result["best"]["validation_hash"] == result["validation_hash"] == card["validation_hash"]
    assert result["best"]["data_hashes"] == result["data_hashes"]


def test_command(settings: TuneSettings, stub: Stub) -> None:
    from crossfake.detect.commands.tune import tune as command

    base = settings.base
    words = ["--real", str(base.real[0]), "--fake", str(base.fake[0]), "--space", str(settings.space)]
    words += ["--steps", "20", "--out", str(base.out), "--trials", "5"]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0
    for text in ("val AP", "5 trials: ", "optimistic", "difference", "best detector"):
        assert text in done.output
    more = CliRunner().invoke(command, ["--out", str(base.out), "--resume", "--trials", "6"])
    assert more.exit_code == 0 and "6 trials: " in more.output
    assert isinstance(CliRunner().invoke(command, ["--resume"]).exception, UserError)
    assert yaml.safe_load((base.out / "config.yaml").read_text())["kind"] == "tune"


def test_grid_values_lie_within_their_distribution() -> None:
    space = parse_space(
        "lr: {low: 3e-4, high: 1e-2, log: true}\nlabel_or: 1\n".replace("label_or", "patience")
    )
    distribution = space.distributions()["lr"]
    assert all(distribution._contains(value) for value in space.grid()["lr"])


@pytest.mark.slow
def test_workers_share_one_study(settings: TuneSettings) -> None:
    base = dataclasses.replace(settings.base, steps=8, eval_every=4, augment=0.0)
    settings.space.write_text("lr: [1e-4, 3e-4, 1e-3, 3e-3]\n")
    result = tune(dataclasses.replace(settings, base=base, method="grid", trials=0, workers=2))
    assert sorted(rates(result)) == [1e-4, 3e-4, 1e-3, 3e-3]
    assert all(trial["state"] in ("complete", "pruned") for trial in result["trials"])
