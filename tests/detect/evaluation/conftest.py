import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def trained(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: a test on strangers is written into the bundle, and others use that too."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "detector"))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures, which are most of the time."""
    monkeypatch.setattr("crossfake.detect.evaluation.page.show", lambda *_: None)
