"""A test on strangers' pictures goes into the bundle, and one that would flatter does not."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.bundle.bundle import load
from crossfake.detect.calibrate import calibrate
from crossfake.detect.commands.evaluate import evaluate as command
from crossfake.detect.evaluation.evaluate import evaluate
from crossfake.detect.settings import CalibrateSettings, EvaluateSettings

from ..conftest import SIZE, make_shards

pytestmark = pytest.mark.usefixtures("plain")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    card = _card(copy)
    card.pop("fitness", None)
    (copy / "model" / "bundle.json").write_text(json.dumps(card))
    return copy


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Reals of another source, and fakes of a generator that is not ``grid``, easy to tell apart."""
    folder = tmp_path_factory.mktemp("strangers")
    reals = make_shards(folder / "elsewhere", 0, 100, seed=9, split="test")
    rng = np.random.default_rng(9)
    with ShardWriter(folder / "checks", SIZE, attributes={"crop": {"policy": "none"}}) as writer:
        for number in range(100):
            image = rng.integers(60, 180, (SIZE // 4, SIZE // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            image[::2, ::2] += 25
            writer.append(image, Row(1, "checks", "checker:1", "test", f"c-{number}", origin=f"{number}.png"))
    return reals, folder / "checks"


def _settings(run: Path, *data: Path, **more: object) -> EvaluateSettings:
    return EvaluateSettings(run, data, bootstrap=0, device="cpu", **more)  # type: ignore[arg-type]


def _card(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "model" / "bundle.json").read_text()))


def test_strangers_let_a_detector_speak(run: Path, strangers: tuple[Path, Path]) -> None:
    assert load(run, "cpu").fitness.grade == "none"
    half = evaluate(_settings(run, strangers[0]))["fitness"]
    assert half["grade"] == "none" and "never tested on a generator that it had not seen" in half["lines"][-1]
    found = evaluate(_settings(run, *strangers))
    detector = load(run, "cpu")
    tested = {each.name: each for each in detector.fitness.tested}
    assert set(tested) == {"elsewhere", "checker:1"} and not any(each.known for each in tested.values())
    assert tested["elsewhere"].n == 100 and tested["elsewhere"].groups == 50
    called = detector.judge(ShardSet(strangers[1]).read_many(range(100)))
    assert tested["checker:1"].fake == np.mean([each.verdict == "fake" for each in called])
    low, high = tested["checker:1"].fake_interval
    assert low <= tested["checker:1"].fake <= high
    assert found["fitness"]["grade"] == detector.fitness.grade != "none"
    assert any(each.verdict != "no reliable answer" for each in detector.say(called))


def test_the_same_data_again_counts_once(run: Path, strangers: tuple[Path, Path]) -> None:
    first = evaluate(_settings(run, *strangers))["fitness"]["test"]
    second = evaluate(_settings(run, *strangers))["fitness"]["test"]
    assert {**first, "time": ""} == {**second, "time": ""}
    assert len(_card(run)["fitness"]["tests"]) == 1  # type: ignore[index]


def test_what_it_learned_from_is_no_stranger(run: Path, real: Path, fake: Path) -> None:
    found = evaluate(_settings(run, real, fake))["fitness"]
    assert "fitness" not in _card(run) and found["grade"] == "none"
    assert "real tells nothing about strangers: it learned from real" in found["lines"]
    assert "grid tells nothing about strangers: it learned from grid" in found["lines"]


def test_a_flattering_test_is_not_kept(run: Path, real: Path, strangers: tuple[Path, Path]) -> None:
    """Rows that it was trained on are among them, so the firewall is not kept."""
    found = evaluate(_settings(run, real, *strangers, split="all"))
    assert found["firewall"] == "not kept" and "fitness" not in _card(run)
    assert found["fitness"]["lines"] == ["this test is not kept in the bundle: the firewall was not kept"]
    rounded = evaluate(dataclasses.replace(_settings(run, *strangers), precision="bf16"))["fitness"]
    assert "fp32" in rounded["lines"][0] and "fitness" not in _card(run)


def test_calibrating_again_asks_for_a_new_test(
    run: Path, real: Path, fake: Path, strangers: tuple[Path, Path]
) -> None:
    evaluate(_settings(run, *strangers))
    calibrate(CalibrateSettings(run, (real,), (fake,), bootstrap=100, device="cpu", coverage=0.8))
    found = load(run, "cpu").fitness
    assert found.grade == "none" and "was before its last calibration" in found.flaws[0]
    evaluate(_settings(run, *strangers))
    assert not load(run, "cpu").fitness.flaws and load(run, "cpu").fitness.reals


def test_the_command_says_what_may_be_said(run: Path, strangers: tuple[Path, Path]) -> None:
    few = (
        make_shards(strangers[0].parent / "few", 0, 20, seed=5, split="test")
        if not (strangers[0].parent / "few").exists()
        else strangers[0].parent / "few"
    )
    arguments = ["--bundle", run, "--data", *strangers, few, "--bootstrap", 0, "--device", "cpu"]
    result = CliRunner().invoke(command, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert "few counts for nothing: 10 groups, and it takes 30" in result.output
    assert (
        "fitness: " in result.output
        and "Learned from fake, real and grid; tested on elsewhere" in result.output
    )
