import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.detect.cli import detect
from crossfake.runs import Run

from .conftest import make_shards

QUICK = ["--steps", "4", "--batch", "8", "--device", "cpu"]


def _run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(detect, list(args))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


def test_train_evaluate_predict(real: Path, fake: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "d", make_shards(tmp_path / "own", 1, seed=5, split="train")
    again = make_shards(tmp_path / "again", 1, seed=9)
    code, text = _run(
        "train",
        "--real",
        str(real),
        "--fake",
        str(fake),
        str(again),
        "--with-synthetic",
        str(own),
        "--out",
        str(out),
        *QUICK,
    )
    assert code == 0 and "detect predict PHOTO" in text
    assert Run(out).config["fake"] == [str(fake), str(again)] and Run(out).config["synthetic"] == [str(own)]
    code, text = _run("evaluate", "--bundle", str(out), "--data", str(real), str(fake), "--bootstrap", "20")
    assert code == 0 and "overall" in text and "48 images in 24 groups" in text
    Image.fromarray(ShardSet(fake).read(0)).save(tmp_path / "x.png")
    code, text = _run(
        "predict", str(tmp_path / "x.png"), "--bundle", str(out), "--csv", str(tmp_path / "x.csv"), "--json"
    )
    assert code == 0 and '"verdict":' in text
    assert "x.png" in (tmp_path / "x.csv").read_text()


def test_with_synthetic_alone_takes_the_newest_fakes_and_their_reals(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = _run("train", "--with-synthetic")
    assert code == 2 and "crossfake demo" in text and text.count("\n") == 1
    run = Run.create("runs/gan", {"data": str(real)}, kind="synth")
    made = make_shards(run.path / "generated", 1, split="train")
    (made / "generated.json").write_text("{}")
    code, text = _run("train", *QUICK, "--with-synthetic")
    assert code == 0, text
    assert "taking the newest generated fakes, runs/gan/generated" in text and str(real) in text
    assert Run(Path("runs/detect-cnn")).config["synthetic"] == ["runs/gan/generated"]
    code, text = _run("train", "--with-synthetic", *QUICK)
    assert code == 0 and "run: runs/detect-cnn-2" in text


def test_user_errors_are_one_line(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for args in (
        ["train"],
        ["train", "--real", str(real)],
        ["train", "--real", "none", "--fake", "none"],
        ["train", "--resume"],
        ["train", "--resume", "--out", "none", "--with-synthetic", str(real)],
        ["evaluate", "--data", str(real)],
        ["predict", "none.png"],
    ):
        code, text = _run(*args)
        assert code == 2 and text.startswith("error:") and text.count("\n") == 1, (args, text)


def test_train_says_what_it_would_do_and_makes_its_control(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = make_shards(tmp_path / "own", 1, seed=5, split="train")
    given = ["--real", str(real), "--fake", str(fake), "--with-synthetic", str(own)]
    code, text = _run("train", *given, *QUICK, "--recipe", "plain", "--dry-run")
    assert code == 0 and "recipe plain" in text and "images/s on cpu" in text and not Path("runs").exists()
    code, text = _run("train", *given, *QUICK, "--out", "mine", "--lr", "0.002", "--eval-every", "2")
    assert code == 0, text
    code, text = _run("train", "--match-steps", "mine", "--lr", "0.001")
    assert code == 0 and "run: mine-control" in text, text
    assert "changes more than the fakes: lr 0.001 instead of 0.002" in text
    config = Run(Path("mine-control")).config
    assert config["synthetic"] == [] and config["fake"] == [str(fake)] and config["stop_after"] == 4
    steps = [[line["step"] for line in Run(Path(name)).log_lines()] for name in ("mine", "mine-control")]
    assert steps[0] == steps[1] == [2, 4]
    code, text = _run("train", "--match-steps", "mine", "--steps", "9")
    assert code == 2 and "--match-steps takes steps from the run that it matches" in text


def test_options_of_the_model_reach_it(real: Path, fake: Path, tmp_path: Path) -> None:
    given = ["train", "--real", str(real), "--fake", str(fake), "--out", str(tmp_path / "d"), *QUICK]
    code, text = _run(*given, "--model", "frequency", "--option", "head=cnn")
    assert code == 0, text
    assert Run(tmp_path / "d").config["options"] == {"head": "cnn"}
    card = json.loads((tmp_path / "d" / "model" / "bundle.json").read_text())
    assert card["options"]["head"] == "cnn" and card["options"]["size"] == 16
    code, text = _run(*given, "--option", "head")
    assert code == 2 and "write --option NAME=VALUE" in text


def test_resume_takes_no_other_fakes(trained: Path, fake: Path) -> None:
    config = Run(trained).config
    code, text = _run("train", "--resume", "--out", str(trained), "--with-synthetic", str(fake))
    assert code == 2 and "leave --with-synthetic out" in text and text.count("\n") == 1
    assert Run(trained).config == config


def test_what_training_costs_is_said_after_the_first_steps(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossfake.fit.loop._WORTH", 0.0)
    words = (
        "train",
        "--real",
        str(real),
        "--fake",
        str(fake),
        "--out",
        str(tmp_path / "d"),
        "--batch",
        "8",
        "--device",
        "cpu",
        "--eval-every",
        "5",
    )
    code, text = _run(*words, "--steps", "12")
    assert code == 0
    (line,) = [line for line in text.splitlines() if " steps to go: about " in line]
    assert re.fullmatch(
        r"6 of 12 steps to go: about \d+ s at [\d.e-]+ s each \(measured over 4\), and 2 validations; "
        r"fewer if the AP does not rise \(--patience 5\)",
        line,
    )


def test_a_stopped_training_hints_at_nothing_that_cannot_work_yet(
    real: Path, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossfake.fit import loop

    with monkeypatch.context() as patch:
        patch.setattr(loop.Stopper, "asked", True)
        code, text = _run(
            "train", "--real", str(real), "--fake", str(fake), "--out", str(tmp_path / "d"), *QUICK
        )
    assert code == 130 and "detect predict" not in text and "run:" not in text
    assert text.splitlines()[-1].startswith("stopped at step 1: continue with 'detect train --out ")
    again = f"--out {tmp_path / 'd'} --resume"
    code, text = _run("train", *again.split(), "--model", "npr")
    assert code == 2 and "was begun with --model cnn, not npr: leave --model out" in text
    code, text = _run("train", *again.split())
    assert code == 0 and "detect predict PHOTO" in text
