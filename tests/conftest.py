"""Tests see no weights, caches, settings or working folder of whoever runs them, and use one thread each."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Before anything imports torch, numpy or matplotlib: they read these once.
_DATA, _WEIGHTS = os.environ.pop("CROSSFAKE_DATA", None), os.environ.pop("CROSSFAKE_WEIGHTS", None)
_TOGETHER = ("tests/cluster/",)
_home = tempfile.TemporaryDirectory(prefix="crossfake-tests-")
os.environ |= {
    "HOME": _home.name,
    "XDG_CACHE_HOME": f"{_home.name}/.cache",
    "HF_HUB_OFFLINE": "1",
    "CROSSFAKE_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of ``--dist loadfile``: the files of a folder that share one Ray cluster go to one worker."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in _TOGETHER if file.startswith(folder)), file)

    return Together(config, log)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Whatever ran before, a test draws the same random numbers of torch, once that is imported."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that write to ``runs/`` do so in a fresh folder, not in the source tree."""
    monkeypatch.chdir(tmp_path)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def _folder(name: str, value: str | None) -> Path:
    if not value or not Path(value).is_dir():
        pytest.skip(f"needs the folder that ${name} names")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder ``$CROSSFAKE_DATA``, with real photos in ``all-age-faces/``; skips without it."""
    return _folder("CROSSFAKE_DATA", _DATA)


@pytest.fixture
def real_weights(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``$CROSSFAKE_WEIGHTS``, which crossfake then finds weights in; skips without it."""
    folder = _folder("CROSSFAKE_WEIGHTS", _WEIGHTS)
    monkeypatch.setenv("CROSSFAKE_WEIGHTS", str(folder))
    return folder
