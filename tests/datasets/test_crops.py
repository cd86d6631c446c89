import io
import pickle
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.crops import GLANCE, Cropper, crop_words
from crossfake.datasets.decode import Decoded, decode_image
from crossfake.datasets.faces import Face, find_faces
from crossfake.datasets.geometry import TOO_CLOSE, Skip, cut_square, face_square, outside, room
from crossfake.datasets.losses import keeping_margin
from crossfake.errors import UserError

# Right eye, left eye, nose, right and left mouth corner of an upright face whose eyes are 40 apart.
UPRIGHT = np.array([[-20, 0], [20, 0], [0, 25], [-15, 45], [15, 45]], np.float64)


def _turned(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return UPRIGHT @ turn * scale + (x, y)


def align(image: np.ndarray, points: np.ndarray, size: int, margin: float = 1.3) -> np.ndarray:
    return cut_square(image, *face_square(points, margin), size)


def _map(side: int) -> np.ndarray:
    """A picture whose red and green say where in it a pixel is, 0 to 255."""
    ramp = (np.arange(side) + 0.5) * (255 / side)
    picture = np.zeros((side, side, 3))
    picture[..., 0], picture[..., 1] = ramp[None, :], ramp[:, None]
    return np.rint(picture).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 17, -35, 90, 180])
@pytest.mark.parametrize("scale", [0.5, 1.7, 3.0])
def test_eyes_and_mouth_come_to_ffhqs_places(degrees: float, scale: float) -> None:
    points = _turned(degrees, scale, 508, 492)
    crop = align(_map(1000), points, 64)
    half = 1.8 * 45  # more than twice the 40 between the eyes
    for point, (x, y) in zip(points[[0, 1, 3, 4]], UPRIGHT[[0, 1, 3, 4]], strict=True):
        column, row = (x / half + 1) * 32, ((y - 4.5) / half + 1) * 32
        found = cv2.remap(crop, np.float32([[column - 0.5]]), np.float32([[row - 0.5]]), cv2.INTER_LINEAR)[
            0, 0
        ]
        assert found[:2] * (1000 / 255) == pytest.approx(point, abs=4)


def test_a_margin_scales_the_square_about_its_centre() -> None:
    (center, half), (same, double) = face_square(UPRIGHT), face_square(UPRIGHT, margin=2.6)
    assert np.allclose(center, same) and np.allclose(2 * half, double)
    assert np.allclose(half, [81, 0]) and np.allclose(center, [0, 4.5])


def test_the_centre_of_a_face_crop_is_one_of_a_smaller_margin() -> None:
    photo = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8), (0, 0), 3
    )
    points = _turned(11, 1.6, 200, 200)
    inner = Cropper(32, "center", margin=0.5)(align(photo, points, 64))
    assert np.abs(inner.astype(int) - align(photo, points, 32, margin=0.65)).max() <= 1


@pytest.mark.parametrize("scale", [1.9, 4.3, 11])
def test_shrinking_does_not_alias(scale: float) -> None:
    """A checkerboard of single pixels becomes grey; a plain warp would turn it into moiré."""
    side = int(scale * 200)
    board = np.indices((side, side)).sum(axis=0) % 2 * 255
    photo = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    for degrees in (0, 7, 45):
        crop = align(photo, _turned(degrees, scale, side / 2, side / 2), 32)[2:-2, 2:-2]
        assert np.abs(crop.astype(float) - 127.5).max() < 24 and crop.std() < 6


def test_a_face_that_is_too_small_or_cut_off_is_skipped() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    with pytest.raises(Skip, match="too small"):
        align(photo, _turned(0, 0.19, 200, 200), 64)
    align(photo, _turned(0, 0.2, 200, 200), 64)
    with pytest.raises(Skip, match="ends too close"):
        align(photo, _turned(0, 1, 30, 200), 64)
    assert align(photo, _turned(0, 1, 60, 200), 64).shape == (64, 64, 3)


def test_what_lies_outside_is_mirrored() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    photo[:, :50] = 200
    crop = align(photo, _turned(0, 1, 70, 200), 64)
    assert crop[:, 1].mean() > 190  # column 1 is left of the picture


@pytest.mark.parametrize(("height", "width"), [(30, 50), (51, 20), (8, 8), (3, 5), (1, 1), (300, 9)])
@pytest.mark.parametrize("policy", ["center", "none"])
def test_policies_without_faces_take_any_shape(policy: str, height: int, width: int) -> None:
    crop = Cropper(16, policy)(np.full((height, width, 3), (9, 100, 250), np.uint8))
    assert crop.shape == (16, 16, 3) and crop.dtype == np.uint8 and crop.flags.c_contiguous
    assert (crop == (9, 100, 250)).all()


def test_center_takes_the_middle_and_none_squeezes() -> None:
    photo = np.zeros((16, 32, 3), np.uint8)
    photo[:, 8:24] = 255
    assert (Cropper(16, "center")(photo) == 255).all()
    assert np.array_equal(Cropper(8, "none")(photo)[0, :, 0], [0, 0, 255, 255, 255, 255, 0, 0])
    wide = np.zeros((8, 64, 3), np.uint8)
    wide[:, ::2] = 255  # shrinks across while it grows down: averaged, not sampled
    assert np.abs(Cropper(16, "none")(wide).astype(int) - 128).max() <= 1


def test_descriptions() -> None:
    center, half = Cropper(8, "center"), Cropper(8, "center", margin=0.5)
    face = {"policy": "face", "margin": 1.2, "detector": "abc"}
    assert center.description() == {"policy": "center"}
    assert half.description() == {"policy": "center", "margin": 0.5}
    assert half.description(face) == {"policy": "face", "margin": 0.6, "detector": "abc"}
    assert Cropper(8, "none").description(face) == face
    assert Cropper(8, "none").description({"policy": "center"}) == {"policy": "center"}
    for cropper in (center, half, Cropper(8, "none")):
        assert Cropper.from_description(8, cropper.description()) == cropper


def test_wrong_settings_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no crop policy 'faces'"):
        Cropper(8, "faces")
    for policy, margin in (
        ("face", 0.1),
        ("face", 7),
        ("center", 1.5),
        ("none", 0.5),
        ("face", float("nan")),
    ):
        with pytest.raises(UserError, match="margin"):
            Cropper(8, policy, margin)
    with pytest.raises(UserError, match="face_detection_yunet"):
        Cropper(8, "face").description()
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"bad\.onnx is not a YuNet model"):
        Cropper(8, "face", face_model=tmp_path / "bad.onnx")(np.zeros((50, 50, 3), np.uint8))


def test_real_faces_come_out_upright(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    photos = sorted((real_data / "all-age-faces").glob("*.jpg"))[::650]
    cropper = pickle.loads(pickle.dumps(Cropper(128)))
    kept = 0
    for photo in photos:
        try:
            crop = cropper.open(photo)
        except Skip:
            continue
        kept += 1
        (face,) = find_faces(crop, cropper.model)
        found = face.points
        eyes, mouth = found[:2].mean(axis=0), found[3:].mean(axis=0)
        assert np.abs(np.rad2deg(np.arctan2(*(found[1] - found[0])[::-1]))) < 12
        assert abs(eyes[0] - 64) < 12 and 50 < eyes[1] < 66 and 85 < mouth[1] < 110
    assert kept >= 8


def test_a_small_face_in_a_large_photo_is_cut_from_the_full_picture(
    real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    photo = Image.open(sorted((real_data / "all-age-faces").glob("*.jpg"))[1300]).convert("RGB")
    large = Image.new("RGB", (3000, 2200), (90, 120, 90))
    large.paste(photo, (1300, 900))
    large.save(tmp_path / "large.jpg", quality=95)
    cropper = Cropper(128)
    glance = decode_image(tmp_path / "large.jpg", at_least=GLANCE)
    assert glance.shape[0] == 550
    opened = cropper.crops_of(tmp_path / "large.jpg", glance)[0].image
    assert np.array_equal(opened, cropper.open(tmp_path / "large.jpg"))
    full = cropper(decode_image(tmp_path / "large.jpg"))
    assert np.array_equal(opened, full) and not np.array_equal(opened, cropper(glance))


def test_no_face_and_tiny_pictures_are_skipped(real_weights: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((200, 200), (1, 1), (3, 900), (2000, 1), (16, 16)):
        with pytest.raises(Skip, match="no face"):
            Cropper(64)(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))


def test_every_face_is_cut_as_the_largest_alone_would_be(
    real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    photos = sorted((real_data / "all-age-faces").glob("*.jpg"))
    sheet = Image.new("RGB", (1500, 1100), (90, 120, 90))
    places = [(50, 600), (700, 350), (1100, 130), (1300, 58)]
    for number, (left, side) in enumerate(places):
        photo = Image.open(photos[1300 + 700 * (number % 2)]).convert("RGB")
        sheet.paste(photo.resize((side, side)), (left, 200))
    sheet.save(tmp_path / "sheet.jpg", quality=95)
    cropper = Cropper(128)
    found = cropper.each_face(tmp_path / "sheet.jpg", decode_image(tmp_path / "sheet.jpg", at_least=GLANCE))
    assert len(found) == 4
    for (box, crop), (left, side) in zip(found, places, strict=True):
        assert (
            left < (box[0] + box[2] / 2) * 1500 < left + side
            and 200 < (box[1] + box[3] / 2) * 1100 < 200 + side
        )
        assert (str(crop) if isinstance(crop, Skip) else "cut") == ("face too small" if side == 58 else "cut")
        assert isinstance(crop, Skip) or (crop.box == box and (crop.scale > 1) == (side == 130))
    first = found[0][1]
    assert not isinstance(first, Skip) and np.array_equal(first.image, cropper.open(tmp_path / "sheet.jpg"))
    blank = np.full((300, 300, 3), 255, np.uint8)
    assert cropper.each_face(b"", blank) == []


def test_crops_say_how_much_they_were_enlarged() -> None:
    photo = np.zeros((40, 80, 3), np.uint8)
    assert Cropper(20, "center").crops(photo)[0].scale == 0.5
    assert Cropper(80, "none").crops(photo)[0].scale == 2 and Cropper(80, "none").crops(photo)[0].box is None


def _photo(height: int = 300, width: int = 300) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3))


def test_how_much_larger_a_crop_may_be_is_where_a_quarter_lies_outside() -> None:
    photo = _photo(300, 220)
    for degrees, scale, x, y in (
        (0, 1.0, 110, 150),
        (20, 2.0, 60, 90),
        (-50, 0.4, 200, 280),
        (90, 3, 25, 40),
    ):
        center, half = face_square(_turned(degrees, scale, x, y))
        widest = room(photo, center, half)
        assert (
            outside(photo, center, half * widest * 0.999)
            <= 0.25
            < outside(photo, center, half * widest * 1.02)
        )
    assert room(photo, np.array([-1.0, 50.0]), np.array([30.0, 0.0])) == 0


def test_a_picture_that_ends_too_close_says_which_margin_would_do() -> None:
    photo = _photo(200, 200)
    points = _turned(8, 1, 100, 100) * 1.0
    with pytest.raises(Skip, match="ends too close") as caught:
        align(photo, _turned(8, 1.6, 100, 100), 64)
    assert 0.5 < caught.value.room < 1
    margin = 1.3 * caught.value.room
    assert align(photo, _turned(8, 1.6, 100, 100), 64, margin * 0.999).shape == (64, 64, 3)
    with pytest.raises(Skip, match="ends too close"):
        align(photo, _turned(8, 1.6, 100, 100), 64, margin * 1.03)
    with pytest.raises(Skip, match="ends too close") as caught:  # where it would do, it would be too small
        align(photo, points - [95, 0], 80)
    assert caught.value.room == 0


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Face]:
    """What the face detector finds in whatever picture."""
    (tmp_path / "model.onnx").write_bytes(b"a model")
    faces: list[Face] = []

    def find(image: np.ndarray, model: Path, threshold: float = 0.6, **_: object) -> list[Face]:
        return [face for face in faces if face.confidence >= threshold]

    monkeypatch.setattr("crossfake.datasets.crops.find_faces", find)
    return faces


def _face(degrees: float, scale: float, x: float, y: float, confidence: float = 0.9) -> Face:
    points = _turned(degrees, scale, x, y)
    low, high = points.min(axis=0), points.max(axis=0)
    return Face(points, (*(low - 10 * scale), *(high - low + 20 * scale)), confidence)


def test_edges_are_skipped_or_mirrored_as_is_asked(found: list[Face], tmp_path: Path) -> None:
    photo, model = _photo(), tmp_path / "model.onnx"
    found[:] = [_face(0, 3, 150, 90)]
    for policy, margin in (("face", 1.3), ("square", 2.6)):
        skip, reflect = (Cropper(64, policy, margin, model, edge=edge) for edge in ("skip", "reflect"))
        with pytest.raises(Skip, match="ends too close"):
            skip(photo)
        square = reflect._square(found[0])
        side = round(2 * float(np.hypot(*square[1])))
        left, top = np.rint(square[0] - side / 2).astype(int)
        pad = 400
        padded = cv2.copyMakeBorder(photo, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
        want = padded[top + pad : top + pad + side, left + pad : left + pad + side]
        want = cv2.resize(want, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(reflect(photo).astype(int) - want).mean() < 2
        assert np.array_equal(reflect.each_face(b"", photo)[0][1].image, reflect(photo))  # type: ignore[union-attr]
        frames = list(reflect.of_video([(0, photo, None)]))
        assert np.array_equal(frames[0][1].image, reflect(photo))  # type: ignore[union-attr]
    found[:] = [_face(0, 1, 150, 150)]  # where there is room, the choice changes nothing
    assert np.array_equal(
        Cropper(64, face_model=model)(photo), Cropper(64, face_model=model, edge="reflect")(photo)
    )
    found[:] = [_face(0, 3, 40, 150)]  # an eye lies beyond the picture
    with pytest.raises(Skip, match="ends too close"):
        Cropper(64, face_model=model, edge="reflect")(photo)


def test_the_choice_of_edges_is_part_of_the_description(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    skip, reflect = (Cropper(64, face_model=model, edge=edge) for edge in ("skip", "reflect"))
    assert "edge" not in skip.description()  # as sets and bundles of before there was a choice
    assert reflect.description() == {**skip.description(), "edge": "reflect"}
    for cropper in (skip, reflect):
        assert Cropper.from_description(64, cropper.description(), model) == cropper
    assert Cropper(32, "center", 0.5).description(reflect.description())["edge"] == "reflect"
    assert skip.description(reflect.description()) == reflect.description()  # of crops, cropped once more
    with pytest.raises(UserError, match="choice of edges 'wrap'"):
        Cropper.from_description(64, {"policy": "face", "edge": "wrap"})
    with pytest.raises(UserError, match=r"stays within the picture: leave --edge out"):
        Cropper(64, "center", edge="reflect")


def test_native_crops_are_the_pictures_own_pixels(found: list[Face], tmp_path: Path) -> None:
    photo, model = _photo(), tmp_path / "model.onnx"
    height, width = photo.shape[:2]
    found[:] = [_face(25, 1, 150, 150)]
    cropper = Cropper(0, face_model=model, pixels="native", min_size=60)
    center, half = face_square(found[0].points)
    side = round(2 * float(np.hypot(*half)))
    left, top = (round(float(at) - side / 2) for at in center)
    assert np.array_equal(cropper(photo), photo[top : top + side, left : left + side])
    assert np.array_equal(cropper.each_face(b"", photo)[0][1].image, cropper(photo))  # type: ignore[union-attr]
    (frame,) = cropper.of_video([(7, photo, None)])
    assert frame[0] == 7 and np.array_equal(frame[1].image, cropper(photo))  # type: ignore[union-attr]
    crop = cropper.crops(photo, mask=photo)[0]
    assert crop.mask is None and crop.scale == 1 and crop.image.base is None
    square = Cropper(64, "square", 2.0, model, pixels="native", min_size=20)
    assert square(photo).shape[0] == round(2 * max(found[0].box[2:])) and square.size == 0
    plain = Cropper(0, "none", pixels="native")
    assert np.array_equal(plain(photo), photo)
    middle = Cropper(0, "center", 0.5, pixels="native")(photo)
    assert middle.shape == (min(height, width) // 2,) * 2 + (3,)
    with pytest.raises(Skip, match="smaller than 128 pixels"):
        plain(photo[:127])


def test_a_native_crop_ends_where_the_picture_does(found: list[Face], tmp_path: Path) -> None:
    photo, model = _photo(), tmp_path / "model.onnx"
    found[:] = [_face(0, 2, 150, 90)]
    clip, skip = (
        Cropper(0, face_model=model, pixels="native", min_size=100, edge=edge) for edge in ("", "skip")
    )
    cut = clip(photo)
    center, half = face_square(found[0].points)
    side = round(2 * float(np.hypot(*half)))
    left, top = (max(0, round(float(at) - side / 2)) for at in center)
    assert clip.edge == "clip" and side > cut.shape[0]
    assert np.array_equal(cut, photo[: cut.shape[0], left : left + cut.shape[1]]) and top == 0
    found[:] = [_face(0, 3, 20, 20)]
    assert min(clip(photo).shape[:2]) >= 100
    with pytest.raises(Skip, match=TOO_CLOSE):
        skip(photo)
    found[:] = [_face(0, 1, -200, 20)]  # nothing of it lies within
    with pytest.raises(Skip, match="smaller than 100 pixels"):
        clip(photo)


def test_native_crops_say_that_they_are(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    aligned = Cropper(64, face_model=model).description()
    for edge in ("clip", "skip"):
        native = Cropper(0, face_model=model, pixels="native", min_size=96, edge=edge)
        said = native.description()
        assert said == {**aligned, "pixels": "native", "min_size": 96} | (
            {"edge": "skip"} if edge == "skip" else {}
        )
        assert Cropper.from_description(128, said, model) == native
    plain = Cropper(0, "none", pixels="native")
    assert plain.description() == {"policy": "none", "pixels": "native", "min_size": 128}
    assert plain.description(aligned) == {**aligned, "pixels": "native", "min_size": 128}
    assert Cropper(64, "none").description(plain.description()) == {"policy": "none"}
    assert crop_words(plain.description()) == "--crop none --pixels native --min-size 128"
    for wrong, options in (
        ("--edge reflect is not for native", {"pixels": "native", "edge": "reflect"}),
        ("--edge clip is not for aligned", {"edge": "clip"}),
        ("kind of pixels 'own'", {"pixels": "own"}),
        ("--size 0 is out of range", {}),
        ("--min-size 0 is out of range", {"min_size": 0}),
        ("stays within the picture", {"pixels": "native", "policy": "none", "edge": "skip"}),
    ):
        with pytest.raises(UserError, match=wrong):
            Cropper(0, **options)  # type: ignore[arg-type]


def test_the_reason_is_the_largest_faces(found: list[Face], tmp_path: Path) -> None:
    cropper = Cropper(64, face_model=tmp_path / "model.onnx", which="all", min_face=30)
    found[:] = [_face(0, 3, 150, 90), _face(0, 0.2, 150, 250)]  # cut off; small
    with pytest.raises(Skip, match="ends too close"):
        cropper(_photo())
    found[:] = [_face(0, 1, 150, 150, 0.7), _face(0, 3, 150, 90)]  # unclear; cut off
    with pytest.raises(Skip, match="hidden or unclear"):
        Cropper(64, face_model=tmp_path / "model.onnx", which="all", min_confidence=0.8)(_photo())
    found[:] = [_face(0, 1, 80, 150, 0.7), _face(0, 0.9, 220, 150)]
    kept = Cropper(64, face_model=tmp_path / "model.onnx", which="all", min_confidence=0.8).crops(_photo())
    assert [crop.person for crop in kept] == [0]


def test_a_low_confidence_is_asked_of_the_detector(found: list[Face], tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    found[:] = [_face(0, 1, 150, 150, 0.4)]
    for confidence in (0.41, 0.6, 0.8):
        with pytest.raises(Skip, match="no face"):
            Cropper(64, face_model=model, min_confidence=confidence)(_photo())
    low = Cropper(64, face_model=model, min_confidence=0.4)
    assert low(_photo()).shape == (64, 64, 3) and len(low.each_face(b"", _photo())) == 1
    assert not isinstance(next(iter(low.of_video([(0, _photo(), None)])))[1], Skip)


def test_headshots_are_kept_at_the_margin_that_is_named(real_data: Path, real_weights: Path) -> None:
    photos = sorted((real_data / "web-faces" / "real").glob("*.jpg"))[::12]
    margins = []
    for photo in photos:
        try:
            Cropper(64).open(photo)
        except Skip as reason:
            if str(reason) == TOO_CLOSE:
                margins.append(1.3 * reason.room)
    assert len(margins) > 40
    named = keeping_margin(margins)
    assert named and 0.8 <= named <= 1
    kept = 0
    for photo in photos:
        with suppress(Skip):
            kept += len(Cropper(64, margin=named).crops(decode_image(photo)))
    assert kept >= 0.9 * len(photos)
    assert len(Cropper(64, edge="reflect").crops(decode_image(photos[0]))) == 1


def test_a_marked_face_in_a_photo_that_is_decoded_at_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes count in pixels of the file."""
    buffer = io.BytesIO()
    picture = Image.fromarray(_map(256)).resize((1400, 1100))
    picture.save(buffer, "JPEG", quality=95)
    content = buffer.getvalue()
    monkeypatch.setattr("crossfake.datasets.decode.MAX_PIXELS", 1_000_000)
    cropper, box = Cropper(64, "center"), (700.0, 300.0, 400.0, 400.0)
    (crop,) = cropper.crops_of(content, decode_image(content, at_least=GLANCE), box)
    wanted = np.asarray(picture.crop((700, 300, 1100, 700)).resize((64, 64), Image.Resampling.BOX))
    assert np.abs(crop.image.astype(int) - wanted).mean() < 3


def test_people_stay_the_same_when_a_video_changes_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people; from frame 3 on the picture has three times as many pixels along a side."""

    def found(image: np.ndarray, model: object, **_: object) -> list[Face]:
        unit = image.shape[0] / 10
        return [
            Face(np.full((5, 2), np.nan), (unit, 2 * unit, 3 * unit, 3 * unit)),
            Face(np.full((5, 2), np.nan), (6 * unit, 2 * unit, 2 * unit, 2 * unit)),
        ]

    monkeypatch.setattr("crossfake.datasets.crops.find_faces", found)
    cropper = Cropper(16, "square", margin=1.0, which="all", enlarge=10, face_model=Path(__file__))
    sides = [60, 60, 60, 180, 180, 180]
    frames = [(number, _map(side), None) for number, side in enumerate(sides)]
    crops = [(number, crop) for number, crop in cropper.of_video(frames)]
    assert [(number, crop.person) for number, crop in crops] == [(n, p) for n in range(6) for p in (0, 1)]
    first, last = crops[0][1], crops[-2][1]
    assert first.box == pytest.approx((0.1, 0.2, 0.3, 0.3)) and last.box == pytest.approx(first.box)
    assert np.abs(first.image.astype(int) - last.image).mean() < 4  # each from its own frame


def test_a_photo_that_is_decoded_smaller_gives_no_native_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = _photo(600, 600)
    content = io.BytesIO()
    Image.fromarray(photo).save(content, "PNG")
    native = Cropper(0, "none", pixels="native")
    assert np.array_equal(native.open(content.getvalue()), photo)
    monkeypatch.setattr("crossfake.datasets.crops.decode", lambda source: Decoded(photo[::2, ::2], 0.5, ()))
    with pytest.raises(Skip, match="too large to be decoded"):
        native.open(content.getvalue())
