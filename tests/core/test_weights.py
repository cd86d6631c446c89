import dataclasses
import hashlib
from pathlib import Path

import pytest

from crossfake import weights
from crossfake.errors import UserError
from crossfake.weights import KNOWN, find_weights, folders, locate


@pytest.fixture(autouse=True)
def _empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFAKE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", KNOWN)
def test_a_missing_file_is_named_with_its_origin_and_place(name: str) -> None:
    assert locate(name) is None
    with pytest.raises(UserError) as error:
        find_weights(name)
    assert "\n" not in str(error.value)
    for part in (KNOWN[name].files[0], KNOWN[name].origin, str(folders()[0])):
        assert part in str(error.value)


def test_the_named_file_wins_over_the_known_places(tmp_path: Path) -> None:
    known = folders()[0] / KNOWN["inception"].files[0]
    known.parent.mkdir()
    known.write_bytes(b"1")
    mine = tmp_path / "mine.pth"
    with pytest.raises(UserError, match=r"mine\.pth are not there"):
        find_weights("inception", mine)
    mine.write_bytes(b"2")
    assert find_weights("inception", mine) == mine
    assert find_weights("inception") == known


def test_a_small_file_is_fetched_once_and_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CROSSFAKE_OFFLINE")
    (tmp_path / "yunet.onnx").write_bytes(b"a network")
    url = (tmp_path / "yunet.onnx").as_uri()
    hashes = {"right": hashlib.sha256(b"a network").hexdigest(), "wrong": "0" * 64}

    def known(which: str) -> dict[str, weights.Weights]:
        return {"yunet": dataclasses.replace(weights.KNOWN["yunet"], url=url, sha256=hashes[which])}

    right, wrong = known("right"), known("wrong")
    monkeypatch.setattr(weights, "KNOWN", wrong)
    with pytest.raises(UserError, match="not the file that it was"):
        weights.find_weights("yunet")
    monkeypatch.setattr(weights, "KNOWN", right)
    found = weights.find_weights("yunet")
    assert found.read_bytes() == b"a network" and found.is_relative_to(tmp_path / "cache")
    (tmp_path / "yunet.onnx").unlink()
    assert weights.find_weights("yunet") == found  # from now on without the network
    found.unlink()
    with pytest.raises(UserError, match="finding faces needs the file face_detection_yunet"):
        weights.find_weights("yunet")
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_failed_fetch_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CROSSFAKE_OFFLINE", "1")
    with pytest.raises(
        UserError, match=r"fetching it failed \(CROSSFAKE_OFFLINE is set\): fetch it from https"
    ):
        find_weights("yunet")
    monkeypatch.delenv("CROSSFAKE_OFFLINE")
    gone = dataclasses.replace(KNOWN["yunet"], url=(tmp_path / "gone").as_uri())
    monkeypatch.setattr(weights, "KNOWN", {"yunet": gone})
    with pytest.raises(UserError, match=r"fetching it failed \(No such file or directory\): fetch it from"):
        find_weights("yunet")


def test_a_server_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CROSSFAKE_OFFLINE", raising=False)
    (tmp_path / "there").touch()
    assert weights.unreachable((tmp_path / "there").as_uri()) == ""
    assert weights.unreachable((tmp_path / "gone").as_uri()) == "No such file or directory"
    assert weights.unreachable("http://127.0.0.1:9/x") == "Connection refused"
    monkeypatch.setenv("CROSSFAKE_OFFLINE", "1")
    assert weights.unreachable((tmp_path / "there").as_uri()) == "CROSSFAKE_OFFLINE is set"
