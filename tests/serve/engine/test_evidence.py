import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle as bundles
from crossfake.detect.explain import networks
from crossfake.detect.explain.prototypes import Prototypes
from crossfake.errors import MissingDependency
from crossfake.serve.engine.evidence import Evidence


@pytest.fixture(scope="module")
def crops(real: Path, fake: Path) -> np.ndarray:
    return np.stack([ShardSet(real).read(110), ShardSet(fake).read(110)])


def test_all_of_it(bundle: Path, crops: np.ndarray) -> None:
    pytest.importorskip("pytorch_grad_cam")
    detector = bundles.load(bundle, "cpu")
    features = detector.outputs(crops)[1]
    found = Evidence(detector, alike=True).of(crops, features)
    assert len(found) == 2
    for one, label in zip(found, ("real", "fake"), strict=True):
        assert one["notes"] == () and one["heat_method"] == "gradcam"
        assert one["heatmap"].shape == (16, 16, 3) and one["heatmap"].dtype == np.uint8
        assert one["heat"].shape == (16, 16) and np.abs(one["heat"]).max() <= 1
        assert one["spectrum"].dtype == np.uint8 and one["spectrum"].shape[1] > 32
        assert len(one["nearest"]) == 6 and one["nearest"][0].label == label
        distances = [each.distance for each in one["nearest"]]
        assert distances == sorted(distances) and distances[0] >= -1e-6
    assert found[1]["nearest"][0].generator == "grid"
    # and the detector that scores is as it was
    assert (detector.outputs(crops)[1] == features).all()


def test_what_is_missing_is_said(
    bundle: Path, crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle, tmp_path / "run")
    detector = bundles.load(tmp_path / "run", "cpu")
    detector.card["data_hashes"] = {"/gone": "0"}
    for module in ("cams", "pixels"):
        monkeypatch.setattr(f"crossfake.detect.explain.{module}.needs", _none)
    (one,) = Evidence(detector, alike=True).of(crops[:1], detector.outputs(crops[:1])[1])
    assert "heatmap" not in one and "nearest" not in one and one["spectrum"].shape == (16, 16, 3)
    assert len(one["notes"]) == 3 and "grad-cam" in one["notes"][0]
    assert all(str(tmp_path) not in note and "/gone" not in note for note in one["notes"])
    assert networks.needs is not _none


def _none(module: str, package: str) -> object:
    raise MissingDependency(package, extra="explain")


def test_while_references_are_looked_up_answers_do_without_and_say_so(
    bundle: Path, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    plain = Prototypes.of

    def patient(*args: Any) -> Prototypes:
        begun.set()
        assert go.wait(20)
        return plain(*args)

    monkeypatch.setattr(Prototypes, "of", patient)
    detector = bundles.load(bundle, "cpu")
    evidence, features = Evidence(detector, alike=True), detector.outputs(crops)[1]
    thread = threading.Thread(target=evidence.warm_up, args=(crops, features))
    thread.start()
    try:
        assert begun.wait(20)
        soon = evidence.of(crops, features)
    finally:
        go.set()
        thread.join(20)
    assert all("nearest" not in one and "still being looked up" in one["notes"][-1] for one in soon)
    assert all(one["spectrum"].shape == (16, 16, 3) for one in soon)
    assert all(
        len(one["nearest"]) == 6 and one["notes"] == soon[0]["notes"][:-1]
        for one in evidence.of(crops, features)
    )
