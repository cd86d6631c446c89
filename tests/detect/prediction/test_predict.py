import contextlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import logit

from crossfake.datasets.geometry import Skip
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Box
from crossfake.detect.bundle.bundle import Detector, load
from crossfake.detect.prediction.media import Input, Look, Media
from crossfake.detect.prediction.predict import plan, predict
from crossfake.detect.prediction.verdicts import conclude
from crossfake.detect.settings import PredictSettings
from crossfake.detect.verdict import MissedFace, Verdict
from crossfake.errors import UserError


@pytest.fixture
def detector(fit_run: Path) -> Detector:
    return load(fit_run, device="cpu")


def _save(shards: Path, row: int, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ShardSet(shards).read(row)).save(path)
    return path


def test_a_folder_is_judged_in_order_and_broken_files_are_listed(
    detector: Detector, real: Path, fake: Path, tmp_path: Path
) -> None:
    _save(real, 110, tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.jpg").write_text("not a picture")
    _save(fake, 110, tmp_path / "in" / "deep" / "c.png")
    (tmp_path / "in" / "notes.txt").write_text("ignored")
    result = list(predict([tmp_path / "in"], detector))
    assert [Path(p.path).name for p in result] == ["a.png", "b.jpg", "c.png"]
    for each in (result[0], result[2]):  # the word is that of the number, or there is none
        (face,) = each.faces
        assert each.verdict in ("uncertain", "fake" if (face.probability or 0) >= 0.5 else "real")
    assert result[1].verdict == "not judged"
    assert result[1].probability is None and not result[1].judged and "cannot be read" in result[1].problem
    assert result[2].probability == detector(tmp_path / "in" / "deep" / "c.png")
    face = result[2].faces[0]
    assert face.box is None and face.probability == result[2].probability
    assert face.probability is not None
    assert logit(face.score) / detector.card["temperature"] == pytest.approx(logit(face.probability))


def test_a_score_does_not_depend_on_the_company(
    detector: Detector, real: Path, fake: Path, tmp_path: Path
) -> None:
    """Several batches, a broken file in the midst of them, and the memory of one batch at a time."""
    count = detector.batch + 20
    for number in range(count):
        _save((real, fake)[number % 2], number % 120, tmp_path / f"{number:04}.png")
    (tmp_path / "0050.png").write_bytes(b"\x89PNG broken")
    given = predict([tmp_path], detector)
    assert isinstance(given, Iterator)
    found = list(given)
    assert [Path(p.path).stem for p in found] == [f"{n:04}" for n in range(count)]
    assert [p.path for p in found if not p.judged] == [str(tmp_path / "0050.png")]
    for number in (0, 49, 51, count - 1):
        assert found[number].probability == detector(tmp_path / f"{number:04}.png")


def test_a_zip_archive_is_judged_as_its_files_are(
    detector: Detector, real: Path, fake: Path, tmp_path: Path
) -> None:
    for number, shards in enumerate((real, fake)):
        _save(shards, 110, tmp_path / "in" / f"{number}.png")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "in").iterdir()):
            archive.write(path, f"deep\\{path.name}")  # as Windows packs it
    files = [each.probability for each in predict([tmp_path / "in"], detector)]
    settings = PredictSettings(annotate=tmp_path / "marked")
    packed = list(predict([tmp_path / "set.zip"], detector, settings))
    assert [each.probability for each in packed] == files
    assert [each.path for each in packed] == [f"{tmp_path}/set.zip/deep/{number}.png" for number in range(2)]
    assert sorted(path.name for path in (tmp_path / "marked").iterdir()) == ["0.png", "1.png"]


def test_nothing_to_judge_is_one_line(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image to judge"):
        list(predict([tmp_path], detector))
    with pytest.raises(UserError, match="is not there"):
        predict([tmp_path / "none.png"], detector)


def test_settings_are_checked() -> None:
    for wrong in ({"faces": "some"}, {"frames": 0}, {"workers": -1}):
        with pytest.raises(UserError):
            PredictSettings(**wrong)  # type: ignore[arg-type]


def test_a_bundle_with_another_crop_policy_is_said_or_refused(
    detector: Detector, fake: Path, tmp_path: Path, real_weights: Path
) -> None:
    assert plan(detector).note == plan(detector, "whole").note == ""
    other = plan(detector, "all")
    assert other.other and "whole pictures" in other.note and other.cropper.policy == "face"
    picture = _save(fake, 110, tmp_path / "a.png")

    def with_crop(crop: dict[str, object]) -> Detector:
        return replace(detector, card={**detector.card, "crop": crop})

    faces = with_crop({"policy": "face", "margin": 1.3, "detector": "0" * 16})
    assert "another version of YuNet" in plan(faces).note and not plan(faces).other
    mirrored = with_crop({"policy": "face", "margin": 1.3, "detector": "0" * 16, "edge": "reflect"})
    assert plan(faces).cropper.edge == "skip" and plan(mirrored).cropper.edge == "reflect"
    assert plan(faces).cropper.which == "all" and plan(faces, "largest").cropper.which == "largest"
    assert [p.problem for p in predict([picture], faces)] == ["no face"]
    (found,) = predict([picture], faces, PredictSettings(faces="whole"))
    assert "other-crop" in found.faces[0].reasons and found.probability == detector(picture)
    for crop in (
        {"policy": "ears"},
        {"policy": "face", "margin": "wide"},
        {"policy": "face", "margin": 99},
        {"policy": "face", "edge": "wrap"},
    ):
        with pytest.raises(UserError, match="crop that cannot be made here"):
            plan(with_crop(crop))
        assert plan(with_crop(crop), "whole").other


def test_a_missing_or_damaged_face_model_is_not_each_pictures_fault(
    detector: Detector, tmp_path: Path
) -> None:
    for model, match in (
        (tmp_path / "none.onnx", r"none\.onnx"),
        (tmp_path / "bad.onnx", "not a YuNet model"),
    ):
        (tmp_path / "bad.onnx").write_text("x")
        card = {**detector.card, "crop": {"policy": "face", "margin": 1.3}}
        with pytest.raises(UserError, match=match):
            plan(replace(detector, card=card, face_model=model))


def _verdict(score: float, verdict: str, **options: object) -> Verdict:
    given = {"low": score - 0.1, "high": score + 0.1, "novelty": score, "reasons": (), **options}
    return Verdict(score, score, verdict=verdict, **given)  # type: ignore[arg-type]


def test_a_picture_is_as_bad_as_its_worst_face() -> None:
    pixels = np.empty((0, 0, 3), np.uint8)
    looks = tuple(Look(pixels, (0, 0, 1, 1), person=n, reasons=("blurred",) * (n == 1)) for n in range(3))
    media = Media(Input("a"), size=(9, 8), looks=looks, missed=(MissedFace("face too small", (1, 2, 3, 4)),))
    found = [
        _verdict(0.2, "real"),
        _verdict(0.9, "uncertain", reasons=("near-threshold",)),
        _verdict(0.6, "fake"),
    ]
    result = conclude(media, found, ("other-crop",))
    assert result.verdict == "fake" and result.probability == 0.6 and (result.width, result.height) == (9, 8)
    assert result.faces[1].reasons == ("near-threshold", "blurred", "other-crop")
    assert result.skipped[0].reason == "face too small" and result.skipped[0].box == (1, 2, 3, 4)
    assert conclude(replace(media, looks=looks[:2]), found[:2]).verdict == "uncertain"
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["faces"][0]["low"] == 0.1 and plain["faces"][0]["box"] == [0, 0, 1, 1]


def test_a_video_is_pooled_over_the_frames_of_each_person() -> None:
    pixels = np.empty((0, 0, 3), np.uint8)
    box: Box = (0, 0, 1, 1)
    scores = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4]
    looks = tuple(Look(pixels, box, 5 * n, n % 2, ("blurred",) * (n == 1)) for n in range(7))
    media = Media(
        Input("v"),
        "video",
        (9, 8),
        looks,
        (MissedFace("no face", frames=2),),
        rate=25,
    )
    found = [_verdict(score, "fake" if score > 0.5 else "real") for score in scores]
    result = conclude(media, found)
    calm, forged = result.faces
    assert calm.probability == pytest.approx(0.25) and calm.verdict == "real" and calm.person == 0
    assert forged.probability == pytest.approx(0.8) and forged.low == pytest.approx(0.7)
    assert forged.quantile == pytest.approx(np.quantile([0.9, 0.8, 0.7], 0.9)) and forged.novelty == 0.8
    assert forged.reasons == () and result.verdict == "fake" and result.probability == forged.probability
    assert [(f.frame, f.seconds, f.verdict) for f in forged.frames] == [
        (5, 0.2, "fake"),
        (15, 0.6, "fake"),
        (25, 1.0, "fake"),
    ]
    assert result.skipped[0].frames == 2
    wavering = [
        _verdict(s, "uncertain" if n in (3, 5) else v)
        for n, (s, v) in enumerate(zip(scores, ["real", "fake"] * 4, strict=False))
    ]
    assert conclude(media, wavering).faces[1].verdict == "uncertain"
    unknown = [_verdict(s, "real", low=None, high=None, novelty=None) for s in scores]
    assert conclude(media, unknown).faces[0].low is None


def test_the_largest_face_has_the_score_that_python_gives(
    detector: Detector, real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    card = {**detector.card, "crop": {"policy": "face", "margin": 1.3}}
    faces = replace(detector, card=card)
    photos, expected = [], []
    for photo in sorted((real_data / "all-age-faces").glob("*.jpg"))[::650]:
        with contextlib.suppress(Skip):
            expected.append(float(faces.score(faces.crop.open(photo)[None])[0]))
            photos.append(photo)
    assert len(photos) >= 4
    for which in ("all", "largest"):
        found = list(predict(photos, faces, PredictSettings(faces=which)))
        assert [p.faces[0].probability for p in found] == expected
        for each in found:
            x, y, width, height = each.faces[0].box or (0, 0, 0, 0)
            assert 0 < x + width / 2 < each.width and 0 < y + height / 2 < each.height


def test_an_untested_detector_is_silent(trained: Path, fake: Path, tmp_path: Path) -> None:
    untested = load(trained, device="cpu")
    (found,) = predict([_save(fake, 110, tmp_path / "a.png")], untested)
    (face,) = found.faces
    assert found.verdict == face.verdict == "no reliable answer" and "untested" in face.reasons
    assert found.probability is face.probability is face.low is face.high is None and 0 < face.score < 1


def test_a_prior_moves_what_is_fake(detector: Detector, fake: Path, tmp_path: Path) -> None:
    picture = _save(fake, 110, tmp_path / "a.png")
    even, rare = (
        next(iter(predict([picture], detector, PredictSettings(prior=prior)))) for prior in (None, 0.01)
    )
    assert even.probability is not None and rare.probability is not None
    odds = even.probability / (1 - even.probability) / detector.prior * (1 - detector.prior) * 0.01 / 0.99
    assert rare.probability == pytest.approx(odds / (1 + odds)) and rare.faces[0].prior == 0.01
    with pytest.raises(UserError, match="prior"):
        PredictSettings(prior=1.0)
