import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.cli import command_group
from crossfake.datasets import blending
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.commands.explain import explain as command
from crossfake.detect.explain.checks import CheckedPictures, blended, check, format_table
from crossfake.detect.explain.explaining import explain
from crossfake.detect.settings import ExplainSettings
from crossfake.errors import UserError

detect = command_group("detect", "")
detect.add_command(command)


def _run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(detect, ["explain", *args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def looked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Faces are looked for without a network, and found where an aligned crop has them."""
    models: list[str] = []

    def found(image: np.ndarray, model: str) -> np.ndarray:
        models.append(model)
        return blending.aligned_face(image.shape[0])

    monkeypatch.setattr(blending, "find_weights", lambda name, file=None: str(file or name))
    monkeypatch.setattr(blending, "landmarks", found)
    return models


@pytest.fixture
def photos(real: Path, fake: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(ShardSet(real).read(1)).save(folder / "x.png")
    Image.fromarray(ShardSet(fake).read(1)).save(folder / "more" / "x.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("method", ["auto", "integrated-gradients", "spectrum", "prototypes"])
def test_a_picture_and_figures_per_photo(method: str, trained: Path, photos: Path, tmp_path: Path) -> None:
    code, text = _run(
        str(photos),
        "--bundle",
        str(trained),
        "--method",
        method,
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    )
    assert code == 0, text
    facts = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert facts["method"] == ("gradcam" if method == "auto" else method) and len(facts["explained"]) == 3
    names = set()
    for one in facts["explained"]:
        if "broken" in one["path"]:
            assert one["score"] is None and one["reason"] and one["verdict"] == "not judged"
            continue
        assert one["score"] is None and one["verdict"] == "no reliable answer"  # it was not tested
        width, height = Image.open(tmp_path / "out" / one["picture"]).size
        assert width > height > 300 and one["figures"]
        names.add(one["picture"])
    assert names == {"x.png", "x-2.png"} and "broken.png" in text


def test_a_name_that_is_not_utf8(trained: Path, photos: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))
    try:
        odd.write_bytes((photos / "x.png").read_bytes())
        odd.with_stem(odd.stem + "2").write_bytes(b"no picture")
    except OSError:
        pytest.skip("this file system has no such names")
    code, text = _run(
        str(photos), "--bundle", str(trained), "--out", str(tmp_path / "out"), "--device", "cpu"
    )
    assert code == 0, text
    written = (tmp_path / "out" / "explanations.json").read_text()
    shown = {Path(one["path"]).name: one["picture"] for one in json.loads(written)["explained"]}
    assert shown["caf\\udce9.png"] == "caf_.png" and (tmp_path / "out" / "caf_.png").is_file()
    assert shown["caf\\udce92.png"] is None
    written.encode(), json.dumps(json.loads(written), ensure_ascii=False).encode()  # no half characters


@pytest.mark.parametrize("policy", ["face", "center"])
def test_blends_look_for_faces_as_the_training_recipe_does(
    policy: str, trained: Path, looked_for: list[str]
) -> None:
    detector = bundle.load(trained, "cpu", face_model=Path("own.onnx"))
    detector.card["crop"] = {"policy": policy, "margin": 1.3}
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    made = blended(CheckedPictures(images, np.array(["a", "b"])), detector, np.random.default_rng(0))
    assert set(made) == {"self-blended", "swapped"}
    assert looked_for == ([] if policy == "face" else ["own.onnx"] * 2)


def test_check_on_validation_images(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    code, text = _run(
        "--bundle",
        str(trained),
        "--check",
        "--images",
        "8",
        "--method",
        "hirescam",
        "--out",
        str(tmp_path),
        "--data",
        str(real),
        str(fake),
        "--device",
        "cpu",
    )
    assert code == 0, text
    for words in (
        "deletion AUC",
        "insertion AUC",
        "weights shuffled",
        "self-blended",
        "swapped",
        "mask area",
    ):
        assert words in text
    found = json.loads((tmp_path / "check.json").read_text())
    assert (tmp_path / "check.png").exists() and not (tmp_path / "explanations.json").exists()
    assert found["method"] == "hirescam" and set(found["data_hashes"]) == {str(real), str(fake)}
    assert found["deletion"]["map"]["n"] <= 8 and found["randomisation"][-1]["share"] == 1
    point = found["pointing"]["self-blended"]
    assert point["hit"]["n"] == 8 and 0.05 < point["chance"]["mean"] < 0.6
    assert point["hit"]["low"] <= point["hit"]["mean"] <= point["hit"]["high"]
    assert found == json.loads((tmp_path / "check.json").read_text())


def test_check_uses_masks_that_shards_have(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "masked", 16, attributes={"crop": {"policy": "none"}}, masks=True) as writer:
        for number in range(20):
            image = rng.integers(60, 180, (16, 16, 3), dtype=np.uint8)
            mask = np.zeros((16, 16), np.uint8)
            mask[4:12, 4:8] = 255
            split = "train" if number < 10 else "val"
            writer.append(image, Row(1, "m", "g", split, f"g{number}", origin=f"{number}.png"), mask)
    found = check(bundle.load(trained, "cpu"), [ShardSet(tmp_path / "masked")], "gradcam", images=6)
    assert list(found["pointing"]) == ["stored masks"]
    stored = found["pointing"]["stored masks"]
    assert stored["hit"]["n"] == 6 and stored["chance"]["mean"] == pytest.approx(32 / 256)
    assert "maximum in the mask, stored masks" in format_table(found)


def test_check_without_a_fake_that_is_called_fake(trained: Path, real: Path) -> None:
    detector = bundle.load(trained, "cpu")
    detector.card["threshold"] = 2.0
    found = check(detector, [ShardSet(real)], "gradcam", images=4)
    assert (
        found["deletion"] is None
        and found["randomisation"]
        and "no fake is called fake" in format_table(found)
    )


def test_check_is_deterministic(trained: Path, real: Path, fake: Path) -> None:
    detector, sets = bundle.load(trained, "cpu"), [ShardSet(real), ShardSet(fake)]
    assert check(detector, sets, "gradcam", 3) == check(detector, sets, "gradcam", 3)


def test_user_errors_are_one_line(trained: Path, photos: Path, tmp_path: Path) -> None:
    given = ["--bundle", str(trained), "--device", "cpu"]
    (tmp_path / "empty").mkdir()
    for args, words in (
        (given, "there is no image to explain"),
        ([str(photos), *given, "--method", "gradcan"], "did you mean 'gradcam'"),
        ([str(photos), *given, "--method", "rollout"], "choose one of gradcam"),
        ([str(tmp_path / "none.png"), *given], "is not there"),
        ([str(photos / "broken.png"), *given], "nothing could be explained"),
        (["--check", *given, "--method", "spectrum"], "a picture, not a map"),
        (["--check", *given, "--images", "0"], "--images 0 is out of range: give a whole number from 1"),
        ([str(photos / "x.png"), *given, "--out", "/dev/null/x"], "cannot write"),
        ([str(tmp_path / "empty"), *given], "no image"),
    ):
        code, text = _run(*args)
        assert code == 2 and words in text and text.count("error:") == 1, (args, text)
        assert "\n" not in text[text.index("error:") :].strip()


def test_a_video_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="not an image"):
        explain(ExplainSettings(trained, (tmp_path / "a.mp4",), device="cpu"))
