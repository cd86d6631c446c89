"""What crossfake wrote before its folders moved is read, gone on with, and answers as it did.

``tests/fixtures/before/make.sh`` says how it was made, and with which commit.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.verify import verify as verify_shards
from crossfake.detect.bundle.bundle import load
from crossfake.detect.cli import detect
from crossfake.experiments.report.verifying import verify as verify_experiment
from crossfake.provenance import environment
from crossfake.runs import Run
from crossfake.serve.reports.writing import verify_report
from crossfake.synth.cli import synth

BEFORE = Path(__file__).parent / "fixtures" / "before"


@pytest.fixture(autouse=True)
def _copied(tmp_path: Path) -> None:
    """The working folder holds a copy, which commands may write to."""
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)


def _run(command, *args: str) -> str:
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def _same_machine() -> bool:
    """Bits are promised for the same kind of processor and the same version of torch."""
    then, now = json.loads((BEFORE / "gan/environment.json").read_text()), environment()
    return all(
        then[part][name] == now[part][name]
        for part, name in (("packages", "torch"), ("hardware", "cpu"), ("hardware", "cpu_capability"))
    )


def _check_weights(found: Path, expected: Path) -> None:
    ours, theirs = load_file(found), load_file(expected)
    assert list(ours) == list(theirs)
    for name, values in theirs.items():
        if _same_machine():
            np.testing.assert_array_equal(ours[name], values, name)
        else:
            np.testing.assert_allclose(ours[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_shards() -> None:
    for folder in ("reals", "fakes", "fakes-val"):
        verify_shards(Path(folder))
    assert set(ShardSet(Path("reals")).columns["split"]) == {"train", "val", "test"}
    assert set(ShardSet(Path("fakes")).columns["label"]) == {1}


def test_a_generators_run_goes_on_as_if_it_had_never_stopped() -> None:
    weights = Path("gan/model/generator.safetensors")
    stopped, last = load_file(weights), Path("gan-whole/model/generator.safetensors")
    assert any(not np.array_equal(values, stopped[name]) for name, values in load_file(last).items())
    assert "going on from" in _run(synth, "train", "--resume", "--out", "gan")
    _check_weights(weights, last)
    assert [line["step"] for line in Run(Path("gan")).log_lines()] == [
        line["step"] for line in Run(Path("gan-whole")).log_lines()
    ]


def test_a_detectors_run_goes_on_as_if_it_had_never_stopped() -> None:
    assert not Path("detector/model").exists()
    assert "going on from step 4" in _run(detect, "train", "--resume", "--out", "detector")
    _check_weights(Path("detector/model/model.safetensors"), Path("detector-whole/model/model.safetensors"))


def test_a_generator_makes_the_same_fakes() -> None:
    _run(
        synth,
        "generate",
        "--model",
        "gan-whole",
        "--n",
        "12",
        "--seed",
        "3",
        "--out",
        "again",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    )
    then, now = ShardSet(Path("fakes")), ShardSet(Path("again"))
    rows = range(12)
    apart = np.abs(np.subtract(then.read_many(rows), now.read_many(rows), dtype=np.int16)).max()
    assert apart == 0 if _same_machine() else apart <= 1
    assert then.columns["generator"].tolist() == now.columns["generator"].tolist()


def test_a_bundle_gives_the_same_scores() -> None:
    rows = [ShardSet(Path(folder)).read(row) for folder in ("reals", "fakes") for row in range(12)]
    detector = load(Path("detector-whole"), "cpu")
    for now, then in zip(detector.judge(rows), json.loads(Path("said.json").read_text()), strict=True):
        assert now.probability == pytest.approx(then["score"], rel=1e-4, abs=1e-9)
        assert (now.low, now.high) == pytest.approx((then["low"], then["high"]), rel=1e-4, abs=1e-9)
        assert (now.verdict, now.novelty, list(now.reasons)) == (
            then["verdict"],
            pytest.approx(then["novelty"]),
            then["reasons"],
        )


def test_a_bundle_says_that_nothing_is_known_of_strangers() -> None:
    """Fitness is newer than this bundle: the command says that, and what to do, where it gave a number before."""
    from PIL import Image

    Image.fromarray(ShardSet(Path("fakes")).read(0)).save("fake.png")
    said = _run(detect, "predict", "fake.png", "--bundle", "detector-whole")
    assert "no reliable answer" in said and "detect evaluate" in said


def test_a_bundle_is_measured_and_knows_what_it_saw() -> None:
    _run(
        synth,
        "generate",
        "--model",
        "gan-whole",
        "--n",
        "8",
        "--seed",
        "700",
        "--split",
        "test",
        "--out",
        "new",
    )
    said = _run(
        detect,
        "evaluate",
        "--bundle",
        "detector-whole",
        "--data",
        "reals",
        "--data",
        "new",
        "--device",
        "cpu",
    )
    assert "6 + 8" in said and "learned from toyfaces" in said
    said = _run(detect, "evaluate", "--bundle", "detector-whole", "--data", "reals", "--split", "train")
    assert "13 of 13 images of reals belong to groups that were" in said


def test_a_search_goes_on_where_its_folder_lies_now() -> None:
    then = json.loads(Path("search/study.json").read_text())
    _run(detect, "tune", "--resume", "--out", "search", "--trials", "3")
    now = json.loads(Path("search/study.json").read_text())
    assert [trial["state"] for trial in now["trials"]] == ["complete"] * 3
    for name in ("params", "value", "seed", "seconds"):
        assert [t[name] for t in now["trials"][:2]] == [t[name] for t in then["trials"]], name


@pytest.mark.parametrize("fmt", ["html", "pdf"])
def test_a_report_is_as_it_was_signed(fmt: str) -> None:
    pytest.importorskip("cryptography")
    (report,) = Path("reports").glob(f"*.{fmt}")
    found = verify_report(report, Path("key.pub"))
    assert found.status == "valid" and found.payload["analysis"]["verdict"] == "fake"
    content = bytearray(report.read_bytes())
    content[len(content) // 2] ^= 1
    report.write_bytes(content)
    assert verify_report(report, Path("key.pub")).status == "changed"


def test_an_experiments_numbers_follow_from_its_scores() -> None:
    assert verify_experiment("experiment") == []
    (scores, *_) = sorted(Path("experiment/cells").glob("*/scores/*.csv"))
    scores.write_text(scores.read_text().replace("0.", "0.1", 1))
    assert verify_experiment("experiment")
