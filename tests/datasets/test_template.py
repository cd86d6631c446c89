"""Faces turned onto a template: the similarity is the reference's, and the frame is where it says."""

import cv2
import numpy as np
import pytest

from crossfake.datasets.crops import Cropper
from crossfake.datasets.faces import Points
from crossfake.datasets.template import Template, similarity
from crossfake.errors import UserError

POINTS = ((0.34, 0.46), (0.66, 0.46), (0.5, 0.64), (0.37, 0.82), (0.63, 0.82))


def _moved(points: Points, degrees: float, scale: float, shift: tuple[float, float]) -> Points:
    turn = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ matrix.T + shift


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (17, 0.3), (-90, 2.5), (180, 1), (135, 40)])
def test_a_similarity_that_is_known_is_found(degrees: float, scale: float) -> None:
    source = np.random.default_rng(0).normal(100, 30, (5, 2))
    target = _moved(source, degrees, scale, (7, -3))
    found = similarity(source, target)
    np.testing.assert_allclose(source @ found[:, :2].T + found[:, 2], target, atol=1e-9)
    turn = np.deg2rad(degrees)
    np.testing.assert_allclose(found[:, 0], scale * np.array([np.cos(turn), np.sin(turn)]), atol=1e-9)


def test_of_points_that_do_not_fit_it_is_the_least_squares() -> None:
    rng = np.random.default_rng(1)
    source, target = rng.normal(0, 20, (5, 2)), rng.normal(50, 20, (5, 2))
    rows = np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in source])
    a, b, right, down = np.linalg.lstsq(rows, target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(source, target), [[a, -b, right], [b, a, down]], atol=1e-9)


def test_deepfakebenchs_is_scikit_images() -> None:
    """The matrix is what SimilarityTransform.estimate of scikit-image 0.26.0 gives for its template at 256 pixels."""
    from crossfake.detect.importing.table import load_table

    template = load_table()["deepfakebench/xception"].sees.upright()
    assert template is not None
    face = np.array([[101.5, 120.25], [170.0, 98.75], [150.5, 160.0], [128.25, 205.5], [187.75, 186.0]])
    theirs = [[0.78490745, -0.21574798, 45.44044069], [0.21574798, 0.78490745, 3.15878147]]
    found, side = template.place(face, 1.3)
    assert side == 256
    np.testing.assert_allclose(found, theirs, atol=1e-4)  # the table has six digits of its points
    image = np.random.default_rng(0).integers(0, 256, (300, 280, 3), np.uint8)
    apart = np.abs(
        cv2.warpAffine(image, np.array(theirs), (256, 256)).astype(int) - template.cut(image, face, 1.3)[0]
    )
    assert np.mean(apart <= 1) > 0.999


@pytest.mark.parametrize("degrees", [0, 30, -120])
def test_a_turned_face_looks_as_the_upright_one(degrees: float) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8), (0, 0), 4)
    face = np.array(POINTS) * 80 + 100
    about = np.array([150, 150])
    turned = _moved(face - about, degrees, 1, (150, 150))
    matrix = similarity(face, turned)
    other = cv2.warpAffine(image, matrix, (300, 300), flags=cv2.INTER_CUBIC)
    template = Template(POINTS, 64)
    here, there = (
        template.cut(picture, points, 1.3)[0] for picture, points in ((image, face), (other, turned))
    )
    assert np.abs(here.astype(int) - there).mean() < 1.5


def test_a_frame_of_no_side_has_the_faces_own_pixels() -> None:
    template, face = Template(POINTS, 0), np.array(POINTS) * 80 + 30
    image = np.random.default_rng(0).integers(0, 256, (160, 150, 3), np.uint8)
    matrix, side = template.place(face, 1.25)
    assert side == 100
    np.testing.assert_allclose(matrix[:, :2], np.eye(2), atol=1e-12)
    found, enlarged = template.cut(image, face, 1.25)
    np.testing.assert_array_equal(found, image[20:120, 20:120])
    assert enlarged == 1


def test_beyond_the_picture_is_black() -> None:
    found, enlarged = Template(POINTS, 64).cut(np.full((40, 40, 3), 200, np.uint8), np.array(POINTS) * 40, 2)
    assert (found[:, :8] == 0).all() and (found[24:40, 24:40] == 200).all()
    assert enlarged == pytest.approx(64 / 80)


@pytest.mark.parametrize(
    "points",
    [POINTS[:4], [(0, 0)] * 5, [(0, float("nan"))] * 5, "five", [[1]] * 5, None, [*POINTS[:4], ("a", 1)]],
)
def test_what_is_no_template_is_refused(points: object) -> None:
    with pytest.raises(UserError, match="five points|no list of points"):
        Template(points)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "found", [3, {}, {"points": POINTS, "side": "256"}, {"points": POINTS, "side": 10**6}]
)
def test_a_damaged_description_is_refused(found: object) -> None:
    with pytest.raises(UserError):
        Template.of_description(found)


def test_a_cropper_keeps_it_in_its_description() -> None:
    template = Template(POINTS, 64)
    crop = {"policy": "face", "margin": 1.3, "pixels": "native", "template": template.description()}
    assert Cropper.from_description(0, crop).template == template
    with pytest.raises(UserError, match="native faces"):
        Cropper(64, "square", template=template)
