import shutil
from pathlib import Path

import pytest

from crossfake.detect.calibrate import calibrate
from crossfake.detect.evaluation.evaluate import evaluate
from crossfake.detect.settings import CalibrateSettings, EvaluateSettings
from crossfake.serve.engine.analysis import Analyser

from ..detect.conftest import fake, make_fit, native, native_run, real, trained  # noqa: F401


@pytest.fixture(scope="session")
def bundle(
    trained: Path,  # noqa: F811
    real: Path,  # noqa: F811
    fake: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A calibrated and evaluated run of the small CNN on whole pictures of 16 pixels; it needs no face model."""
    run = tmp_path_factory.mktemp("app") / "small"
    shutil.copytree(trained, run)
    calibrate(CalibrateSettings(run, (real,), (fake,), bootstrap=100, device="cpu"))
    evaluate(EvaluateSettings(run, (real, fake), bootstrap=20, device="cpu"))
    return make_fit(run)


@pytest.fixture(scope="session")
def second(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same detector under another name, without its evaluation."""
    run = tmp_path_factory.mktemp("app") / "other"
    shutil.copytree(bundle, run, ignore=shutil.ignore_patterns("evaluation"))
    return run


@pytest.fixture(scope="session")
def analyser(bundle: Path) -> Analyser:
    """Of that one detector, on the CPU."""
    return Analyser([bundle], device="cpu", alike=True)


@pytest.fixture(scope="session")
def both(bundle: Path, second: Path) -> Analyser:
    """Of two detectors."""
    return Analyser([bundle, second], device="cpu", alike=True)
