"""Which rows are one person's: the rule on drawn features, the models on files and real faces."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from crossfake.datasets import identities as module
from crossfake.datasets.faces import Face
from crossfake.datasets.identities import CACHE, Recogniser, draw_joins, join, recognise
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import MissingDependency, UserError

DLIB = Recogniser("dlib", (), Path(), 0.6)
_DIMENSIONS = 20  # as many as dlib's features of different people vary in, near each other


def _people(count: int, spread: float, seed: int = 0) -> np.ndarray:
    """Features of strangers, float32 ``[N, 20]``, about ``spread`` apart."""
    drawn = np.random.default_rng(seed).standard_normal((count, _DIMENSIONS))
    return (drawn * spread / np.sqrt(2 * _DIMENSIONS)).astype(np.float32)


def _photos(people: np.ndarray, apart: float, seed: int = 1) -> np.ndarray:
    """Another photo of each person, ``apart`` from the first."""
    step = np.random.default_rng(seed).standard_normal(people.shape)
    return (people + step / np.linalg.norm(step, axis=1, keepdims=True) * apart).astype(np.float32)


def _sizes(pairs: np.ndarray, count: int) -> np.ndarray:
    links = coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(count, count))
    return np.bincount(connected_components(links, directed=False)[1])


@pytest.mark.parametrize("spread", [0.8, 0.6])
def test_people_are_found_among_strangers_whom_the_published_threshold_would_chain(spread: float) -> None:
    strangers = _people(1500, spread)
    features = np.concatenate([strangers, _photos(strangers[:100], 0.3 * spread)])
    joins = join(features, np.arange(len(features)), DLIB)
    found = {tuple(pair) for pair in joins.pairs.tolist()}
    wanted = {(k, 1500 + k) for k in range(100)}
    assert len(found & wanted) >= 95 and len(found - wanted) <= 0.04 * len(features)
    assert joins.largest <= 5 and joins.published[1] > 1000
    assert (joins.distances <= joins.limits).all() and joins.limits.max() <= 0.6
    certainty = joins.distances / joins.limits
    assert (np.diff(certainty) <= 1e-9).all()  # the least certain come first
    assert "strangers included" in joins.text()


def test_many_photos_of_few_people_are_few_people() -> None:
    people = np.repeat(_people(5, 0.85), 40, axis=0)
    photos = people + np.random.default_rng(2).standard_normal(people.shape) * 0.25 / np.sqrt(2 * _DIMENSIONS)
    joins = join(photos.astype(np.float32), np.arange(200), DLIB)
    whose = np.repeat(np.arange(5), 40)
    assert (whose[joins.pairs[:, 0]] == whose[joins.pairs[:, 1]]).all()
    assert sorted(_sizes(joins.pairs, 200))[-5:] == [40] * 5 and joins.largest == 40


def test_a_threshold_of_ones_own_holds_for_all_pairs() -> None:
    features = np.array([[0, 0], [0.5, 0], [3, 0], [3, 0.7]], np.float32)
    own = Recogniser("dlib", (), Path(), 0.55, fixed=True)
    joins = join(features, np.arange(4), own)
    assert joins.pairs.tolist() == [[0, 1]] and joins.distances[0] == pytest.approx(0.5)
    assert "published" not in joins.text()


def test_a_group_counts_as_one_face_of_each_person_in_it() -> None:
    anna, ben, carl = _people(3, 0.9)
    rng = np.random.default_rng(3)
    film = np.concatenate([np.repeat([anna], 30, 0), np.repeat([ben], 30, 0)])
    film = film + rng.standard_normal(film.shape) * 0.1 / np.sqrt(2 * _DIMENSIONS)  # two people in one video
    features = np.concatenate([film, [anna + 0.01, ben - 0.01, carl, np.full(_DIMENSIONS, np.nan)]]).astype(
        np.float32
    )
    groups = np.array([0] * 60 + [1, 2, 3, 4])
    joins = join(features, groups, DLIB)
    assert joins.faces == 5 and joins.recognised == 63 and joins.rows == 64
    assert sorted(groups[joins.pairs].tolist()) == [[0, 1], [0, 2]]
    assert "63 of 64 pictures (1 show none that was found)" in joins.text()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_faces(count: int) -> None:
    features = np.concatenate([_people(count, 0.8), np.full((2, _DIMENSIONS), np.nan)]).astype(np.float32)
    joins = join(features, np.arange(count + 2), DLIB)
    assert len(joins.pairs) == 0 and joins.recognised == count and joins.largest == 1 and joins.text()


def test_the_least_certain_joins_are_drawn(tmp_path: Path) -> None:
    strangers = _people(300, 0.8)
    joins = join(np.concatenate([strangers, _photos(strangers[:30], 0.2)]), np.arange(330), DLIB)
    file = draw_joins(joins, lambda row: toyface(row % 300, 64), str, tmp_path)
    assert file == tmp_path / "identities.png"
    with Image.open(file) as sheet:  # four pairs a row, six rows, each pair with a line of text
        assert sheet.size == (4 * (2 * 128 + 2) + 2, 6 * (128 + 13 + 2) + 2)
    assert draw_joins(joins.only(np.zeros(len(joins.pairs), bool)), toyface, str, tmp_path) is None
    assert (
        draw_joins(joins, lambda row: toyface(0, 32), str, tmp_path / "identities.png") is None
    )  # not a folder


def _shards(folder: Path, count: int) -> ShardSet:
    with ShardWriter(folder, 32) as writer:
        for number in range(writer.rows_done, count):
            writer.append(toyface(number, 32), Row(0, "s", origin=str(number)))
    return ShardSet(folder)


def test_features_are_kept_until_shards_or_recogniser_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"one")
    (tmp_path / "y.onnx").write_bytes(b"detector")
    recogniser = Recogniser("m", (tmp_path / "m.onnx",), tmp_path / "y.onnx", 1.0)
    sides: list[int] = []
    faces = [Face(np.zeros((5, 2)), (0, 0, 1, 1))]

    def describe(image: np.ndarray, face: Face) -> np.ndarray:
        sides.append(image.shape[0])
        return np.full(4, image.mean(), np.float32)

    monkeypatch.setattr(module, "_opened", lambda *_: SimpleNamespace(width=4, describe=describe))
    monkeypatch.setattr(module, "find_faces", lambda image, *_, **__: faces if image.mean() > 1 else [])
    shards = _shards(tmp_path / "a", 3)
    first = recognise(shards, recogniser, workers=1)
    assert first.shape == (3, 4) and first.dtype == np.float32 and np.isfinite(first).all()
    assert sides == [320] * 3  # small crops are enlarged before landmarks are looked for
    assert np.array_equal(recognise(shards, recogniser, workers=1), first) and len(sides) == 3
    recognise(_shards(tmp_path / "a", 4), recogniser, workers=1)
    assert len(sides) == 7
    (tmp_path / "m.onnx").write_bytes(b"another")
    recognise(ShardSet(tmp_path / "a"), recogniser, workers=1)
    assert len(sides) == 11 and (tmp_path / "a" / CACHE).is_file()
    monkeypatch.setattr(module, "find_faces", lambda *_, **__: [])
    (tmp_path / "m.onnx").write_bytes(b"third")
    assert np.isnan(recognise(ShardSet(tmp_path / "a"), recogniser, workers=1)).all()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install .*'\.\[identity\]'"):
        Recogniser.find()


def test_models_and_thresholds_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "arcface.onnx"
    other.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not there"):
        Recogniser.find(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="not known to be SFace.*--identity-threshold"):
        Recogniser.find(other)
    for threshold in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="no cosine"):
            Recogniser.find(other, threshold)
    with pytest.raises(UserError, match="no distance"):
        Recogniser.find(None, float("nan"))
    (tmp_path / "yunet.onnx").write_bytes(b"nonsense")
    broken = Recogniser.find(other, 0.4, tmp_path / "yunet.onnx")
    assert broken.fixed and broken.limit == pytest.approx(np.sqrt(1.2)) and broken.published == "cosine 0.4"
    with pytest.raises(UserError, match="no face recogniser"):
        broken.open()


def test_an_onnx_file_is_asked_through_opencv(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((16, 3 * 49)).astype(np.float32)
    nodes = [
        helper.make_node(
            "AveragePool", ["data"], ["pooled"], kernel_shape=[16, 16], strides=[16, 16]
        ),  # [1, 3, 7, 7]
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["fc1"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "recogniser",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(weight, "w")],
    )
    file = tmp_path / "my_sface.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), file)
    (tmp_path / "yunet.onnx").write_bytes(b"not opened here")
    recogniser = Recogniser.find(file, face_model=tmp_path / "yunet.onnx")
    assert recogniser.limit == pytest.approx(1.1287, abs=1e-4) and not recogniser.fixed
    model = recogniser.open()
    # the landmarks where FaceRecognizerSF puts them: the face is cut as it is
    points = np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    image = np.zeros((112, 112, 3), np.uint8)
    image[:, :, 0] = np.arange(112) * 2  # red only: BGR would change the result
    vector = model.describe(image, Face(points, (20, 20, 70, 80)))
    pooled = image.transpose(2, 0, 1).reshape(3, 7, 16, 7, 16).mean(axis=(2, 4)).reshape(-1)
    expected = weight @ pooled
    assert model.width == 16 and vector.shape == (16,) and np.linalg.norm(vector) == pytest.approx(1)
    assert vector @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-3)


def test_help_and_check_load_no_recogniser() -> None:
    code = (
        "import sys; import crossfake.datasets.leaks; "
        "assert not {'dlib', 'face_recognition_models', 'sklearn.cluster', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_real_faces(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    from click.testing import CliRunner

    from crossfake.datasets.cli import data
    from crossfake.datasets.prepare import prepare
    from crossfake.datasets.settings import PrepareSettings

    photos = sorted((real_data / "portraits").glob("bio_guide_0209*.jpg"))[:8]
    for name, flip in (("once", False), ("again", True)):
        (tmp_path / name).mkdir()
        for photo in photos:
            with Image.open(photo) as picture:  # mirrored, so that no hash knows it again
                turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture
                turned.convert("RGB").save(tmp_path / name / photo.name, quality=80)
    folders = []
    for name, size, split in (("once", 64, "1/0/0"), ("again", 96, "0/0/1")):
        folders.append(tmp_path / f"{name}-{size}")
        prepare(PrepareSettings(str(tmp_path / name), folders[-1], size, split=split, workers=1))
    words = ["split", "--check", *map(str, folders), "--workers", "1"]
    assert CliRunner().invoke(data, words).exit_code == 0
    found = CliRunner().invoke(data, [*words, "--identities"])
    assert found.exit_code == 1 and "8 leaks (person 8)" in found.output, found.output
    assert "16 of 16 pictures" in found.output and (folders[0] / "identities.png").is_file()
    apart = CliRunner().invoke(data, ["split", *map(str, folders), "--workers", "1", "--identities"])
    assert "8 rows" in apart.output and "joined 8 pairs of groups" in apart.output
    assert CliRunner().invoke(data, [*words, "--identities"]).exit_code == 0
