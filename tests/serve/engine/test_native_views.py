"""Uploads judged by a detector of native pixels: the same score everywhere, and none where windows do not fit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle as bundles
from crossfake.detect.calibrate import calibrate
from crossfake.detect.prediction.predict import predict
from crossfake.detect.settings import CalibrateSettings
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.evidence import SHOWN
from crossfake.serve.engine.stability import STEPS, changed, largest_crop, least_side
from crossfake.serve.reports.writing import page

from ...detect.conftest import make_fit


@pytest.fixture(scope="module")
def run(native_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated, so that scores have intervals."""
    copy = Path(shutil.copytree(native_run, tmp_path_factory.mktemp("app") / "windows"))
    calibrate(CalibrateSettings(copy, bootstrap=100, device="cpu"))
    return make_fit(copy)


@pytest.fixture(scope="module")
def windows(run: Path) -> Analyser:
    return Analyser([run], device="cpu", alike=True)


@pytest.fixture
def photo(native: tuple[Path, Path], tmp_path: Path) -> Path:
    Image.fromarray(ShardSet(native[1]).read(50)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_page_the_api_and_predict_give_one_score(windows: Analyser, run: Path, photo: Path) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from crossfake.serve.settings import ServeSettings
    from crossfake.serve.web.app import create_app

    (wanted,) = predict([photo], bundles.load(run, "cpu"))
    opinion = windows.analyse(photo, explain=False, stability=False).faces[0].opinion
    assert opinion.probability == wanted.probability
    assert (opinion.low, opinion.high) == (wanted.faces[0].low, wanted.faces[0].high)
    own = bundles.load(run, "cpu")
    least, most = (ratio / (1 + ratio) for ratio in own.fitness.evidence)
    assert np.clip(own(photo), least, most) == pytest.approx(opinion.probability, abs=1e-9)
    app = create_app(ServeSettings((run,), page=False), windows)
    with testclient.TestClient(app, base_url="http://127.0.0.1:7860") as client:
        answer = client.post("/api/v1/analyze", files={"file": ("x.png", photo.read_bytes())})
    assert answer.status_code == 200, answer.text
    said = answer.json()["faces"][0]["per_detector"]["windows"]
    assert said["probability"] == pytest.approx(wanted.probability, abs=1e-6)
    assert windows.about()[0].sees == "windows of the whole picture at its own pixels"


def test_a_picture_with_all_its_reasons(windows: Analyser, run: Path, photo: Path) -> None:
    found = windows.analyse(photo)
    (face,) = found.faces
    pixels = np.asarray(Image.open(photo))
    assert (face.crop == pixels).all() and face.heatmap is not None and face.heat is not None
    assert face.heatmap.shape == pixels.shape and face.heat.shape == pixels.shape[:2]
    assert face.spectrum is not None and face.spectrum.shape[0] == 16
    assert len(face.nearest) == 6 and not face.notes
    detector = bundles.load(run, "cpu")
    least, most = (ratio / (1 + ratio) for ratio in detector.fitness.evidence)
    for point, step in zip(face.stability[1:], STEPS, strict=True):
        (tmp := photo.with_name("changed")).write_bytes(changed(pixels, step))
        assert point.probability == pytest.approx(np.clip(detector(tmp), least, most), abs=1e-6)
    assert "What the detector saw" in page(found, "nobody")


def test_a_picture_smaller_than_a_window_has_no_score(windows: Analyser, tmp_path: Path) -> None:
    Image.fromarray(np.full((12, 40, 3), 90, np.uint8)).save(tmp_path / "a.png")
    found = windows.analyse(tmp_path / "a.png")
    assert found.verdict == "not judged" and not found.faces
    assert found.words == (
        "This picture was not judged: it, or the face in it, is smaller than 16 pixels, which the detector needs, and "
        "is not enlarged. That says nothing about it."
    )


def test_a_video_is_judged_by_windows(windows: Analyser, run: Path, photo: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(photo))
    frames = [Image.fromarray(np.roll(pixels, n, 0)).quantize(64) for n in range(3)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    found = windows.analyse(tmp_path / "b.gif")
    (wanted,) = predict([tmp_path / "b.gif"], bundles.load(run, "cpu"))
    assert found.faces[0].opinion.probability == pytest.approx(wanted.probability)
    assert found.faces[0].heatmap is not None and len(found.faces[0].frames) == 3
    frames[0].crop((0, 0, 12, 20)).save(
        tmp_path / "c.gif", save_all=True, append_images=[each.crop((0, 0, 12, 20)) for each in frames[1:]]
    )
    small = windows.analyse(tmp_path / "c.gif")
    assert not small.faces and "smaller than 16 pixels, which the detector needs" in small.words


def test_beside_a_detector_of_resized_pictures(run: Path, bundle: Path, photo: Path, tmp_path: Path) -> None:
    both = Analyser([run, bundle], device="cpu")
    alone = [Analyser([each], device="cpu").analyse(photo, explain=False) for each in (run, bundle)]
    opinions = both.analyse(photo, explain=False).faces[0].per_detector
    for name, one in zip(("windows", "small"), alone, strict=True):
        assert opinions[name].probability == pytest.approx(one.faces[0].opinion.probability)
    Image.fromarray(np.full((12, 40, 3), 90, np.uint8)).save(tmp_path / "a.png")
    (face,) = both.analyse(tmp_path / "a.png", explain=False, stability=False).faces
    assert set(face.per_detector) == {"small"}
    assert face.notes == ("windows could not judge this face.",)


def test_large_pictures_are_not_made_smaller_before_they_are_judged(
    windows: Analyser, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2048, 2050, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    sizes: list[Any] = []
    cut = windows._cut

    def spied(content: bytes, cropper: Any) -> Any:
        media = cut(content, cropper)
        sizes.extend(look.image.shape for look in media.looks)
        return media

    windows._cut = spied  # type: ignore[method-assign]
    try:
        found = windows.analyse(tmp_path / "a.jpg", explain=False)
    finally:
        del windows._cut
    assert set(sizes) == {(2048, 2050, 3)} and len(sizes) == 1 + len(STEPS)
    assert max(found.faces[0].crop.shape) <= SHOWN
    assert largest_crop(windows._loaded) is None and least_side((8000, 6000), [None], None) == 6000
