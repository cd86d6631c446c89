from pathlib import Path

import cv2
import numpy as np
import pytest

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import decode_image
from crossfake.datasets.faces import Face, draw_mask, find_faces, marked_face, mask_box, overlap, track
from crossfake.datasets.geometry import Skip, box_square

POINTS = np.array([[-20, 0], [20, 0], [0, 25], [-15, 45], [15, 45]], np.float64)


def _face(x: float = 0, y: float = 0, side: float = 60, confidence: float = 0.9) -> Face:
    return Face(POINTS + (x, y), (x - side / 2, y - side / 2, side, side), confidence)


def test_yaw_is_that_of_a_turned_head() -> None:
    head = np.array([[-30, 0, 0], [30, 0, 0], [0, 32, 27], [-24, 65, 5], [24, 65, 5]], np.float64)
    for degrees in (-50, -20, 0, 15, 45):
        angle = np.deg2rad(degrees)
        turned = head.copy()
        turned[:, 0] = head[:, 0] * np.cos(angle) + head[:, 2] * np.sin(angle)
        face = Face(turned[:, :2], (0, 0, 1, 1))
        assert face.yaw == pytest.approx(degrees, abs=1.5)


def test_blur_lowers_sharpness() -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8), (0, 0), 2)
    face = _face(150, 150, 200)
    figures = [face.sharpness(cv2.GaussianBlur(image, (0, 0), sigma)) for sigma in (0.1, 2, 5)]
    assert figures[0] > 2 * figures[1] > 4 * figures[2]
    assert _face(-900, -900).sharpness(image) == 0


def test_overlap_is_that_of_areas() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1 and overlap((0, 0, 10, 10), (20, 0, 5, 5)) == 0
    assert overlap((0, 0, 10, 10), (5, 5, 10, 10)) == pytest.approx(25 / 175)
    faces = [_face(0), _face(100), _face(200)]
    assert marked_face(faces, (75, -25, 50, 50)) is faces[1] and marked_face(faces, (400, 0, 50, 50)) is None
    assert marked_face([], (0, 0, 1, 1)) is None


def test_masks_of_polygons() -> None:
    square = np.array([[10, 20], [30, 20], [30, 50], [10, 50]], np.float32)
    mask = draw_mask((square,), 100, 80)
    assert mask.shape == (100, 80, 3) and mask_box(mask) == (10, 20, 21, 31)
    assert mask_box(np.zeros((5, 5, 3), np.uint8)) is None


def test_people_keep_their_number_through_a_video() -> None:
    one = [_face(50 + 6 * k, 50) for k in range(8)]
    other = [_face(300 - 6 * k, 60) for k in range(8)]
    frames = [[a, b] if k % 2 else [b, a] for k, (a, b) in enumerate(zip(one, other, strict=True))]
    frames[3] = [one[3]]  # the other is hidden for a moment
    frames[5] = [*frames[5], _face(700, 300)]  # a third walks in
    assert track(frames) == [[0, 1], [1, 0], [0, 1], [1], [0, 1], [1, 0, 2], [0, 1], [1, 0]]
    assert track([[_face(0, side=50)], [_face(0, side=150)]]) == [
        [0],
        [1],
    ]  # three times as large: somebody else
    assert track([[], [_face()], []]) == [[], [0], []] and track([]) == []


def test_filters_have_their_reasons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    found = [_face(200, 200, 90)]
    monkeypatch.setattr("crossfake.datasets.crops.find_faces", lambda image, model, **_: found)

    def cut(**options: object) -> str:
        try:
            Cropper(32, face_model=tmp_path / "model.onnx", **options)(image)  # type: ignore[arg-type]
        except Skip as reason:
            return str(reason)
        return "kept"

    assert (
        cut()
        == cut(min_face=90)
        == cut(max_yaw=5)
        == cut(min_confidence=0.9)
        == cut(min_sharpness=5)
        == "kept"
    )
    assert cut(min_face=91) == "face too small" and cut(min_confidence=0.95) == "face hidden or unclear"
    assert cut(min_sharpness=1e5) == "face blurred"
    found[:] = [Face(found[0].points + [[0, 0], [0, 0], [15, 0], [0, 0], [0, 0]], found[0].box, 0.9)]
    assert cut(max_yaw=30) == "face turned away" and cut(max_yaw=60) == "kept"
    found.clear()
    assert cut() == "no face" and cut(which="all") == "no face"


def test_which_face_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    image = np.zeros((400, 800, 3), np.uint8)
    image[:, :300], image[:, 300:550], image[:, 550:] = 50, 100, 200
    faces = [_face(150, 200, 90), _face(420, 200, 80), _face(680, 200, 70)]
    monkeypatch.setattr("crossfake.datasets.crops.find_faces", lambda image, model, **_: faces)

    def levels(which: str = "largest", policy: str = "face", **marks: object) -> list[int]:
        cropper = Cropper(16, policy, face_model=tmp_path / "model.onnx", which=which)
        return [round(float(crop.image.mean())) for crop in cropper.crops(image, **marks)]  # type: ignore[arg-type]

    mask = np.zeros_like(image)
    mask[150:250, 640:720] = 255
    assert levels() == [50] and levels("all") == [50, 100, 200]
    assert levels("mask", mask=mask) == [200] and levels("mask") == [50]  # a real has no mask: the largest
    assert levels(box=(380, 160, 80, 80)) == levels("all", box=(380, 160, 80, 80)) == [100]
    with pytest.raises(Skip, match="no face where one is marked"):
        levels(box=(0, 0, 20, 20))
    assert levels(policy="square", box=(0, 0, 60, 60)) == [50]  # a square needs no landmarks
    assert levels(policy="none", box=(560, 0, 100, 100)) == [200]  # the marked face is the picture
    cut = Cropper(16, "face", face_model=tmp_path / "model.onnx", which="mask").crops(image, mask=mask)[0]
    assert cut.mask is not None and cut.mask.shape == (16, 16, 3) and 0 < cut.mask.mean() < 255


def test_a_square_is_its_margin_times_the_face() -> None:
    center, half = box_square((100, 50, 40, 60), 1.3)
    assert center.tolist() == [120, 80] and half.tolist() == [39, 0]


def test_real_faces_are_found_measured_and_followed(real_data: Path, real_weights: Path) -> None:
    photos = [
        decode_image(path) for path in sorted((real_data / "all-age-faces").glob("*.jpg"))[100:2200:2000]
    ]
    wide = np.full((500, 900, 3), 90, np.uint8)
    frames = []
    for step in range(5):
        frame = wide.copy()
        for number, photo in enumerate(photos):
            height, width = photo.shape[:2]
            left = 20 + 440 * number + 15 * step
            frame[60 : 60 + height, left : left + width] = photo
        frames.append((step, frame, None))
    cropper = Cropper(64)
    faces = find_faces(frames[0][1], cropper.model)
    assert len(faces) == 2 and all(face.confidence > 0.8 and abs(face.yaw) < 30 for face in faces)
    crops = list(Cropper(64, which="all").of_video(frames))
    assert [(number, crop.person) for number, crop in crops if not isinstance(crop, Skip)] == [
        (step, person) for step in range(5) for person in (0, 1)
    ]
    main = [crop for _, crop in cropper.of_video(frames) if not isinstance(crop, Skip)]
    assert len(main) == 5
    apart = max(float(np.abs(main[0].image.astype(int) - crop.image).mean()) for crop in main)
    assert apart < 25  # always the same person
