import builtins
from pathlib import Path
from typing import Any

import pytest

from crossfake.detect.metadata.credentials import trusted
from crossfake.detect.metadata.display import claim_words, lines
from crossfake.detect.metadata.reading import read_metadata
from crossfake.errors import UserError

from .files import Signer, picture, saved, xmp

pytest.importorskip("c2pa")
pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def signed(signer: Signer) -> bytes:
    return signer.sign(saved(picture(0, 128), "JPEG"))


def test_a_signer_who_is_trusted(signer: Signer, signed: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.pem").write_bytes(signer.anchors)
    found = read_metadata(signed, trusted(tmp_path / "list.pem"))
    credentials = found.credentials
    assert (credentials.state, credentials.signer, credentials.issuer) == (
        "valid",
        "Photo Desk",
        "Example Newsroom",
    )
    assert (
        credentials.generator == "Toy Generator 2" and credentials.title == "toy" and not credentials.problems
    )
    assert credentials.actions == ("created with Toy Generator 2 (trainedAlgorithmicMedia)",)
    assert found.claims[0].signed == "Photo Desk"
    assert claim_words(found).endswith(
        "It is signed by Photo Desk, whose certificate is trusted, and the signature holds."
    )


def test_a_signer_nobody_vouches_for(signed: bytes) -> None:
    found = read_metadata(signed)
    assert found.credentials.state == "untrusted" and found.credentials.problems == (
        "signingCredential.untrusted",
    )
    assert "anyone can make a certificate" in found.credentials.words
    assert found.claims[0].tool == "Toy Generator 2" and not found.claims[0].signed
    assert read_metadata(signed, Signer("Other").anchors.decode()).credentials.state == "untrusted"
    assert any("the signer is not known" in line for line in lines(found))


def test_a_changed_file(signer: Signer, signed: bytes) -> None:
    changed = bytearray(signed)
    changed[-40] ^= 1
    found = read_metadata(bytes(changed), signer.anchors.decode())
    assert (
        found.credentials.state == "invalid" and "assertion.dataHash.mismatch" in found.credentials.problems
    )
    assert (
        found.claims[0].where == "C2PA manifest whose signature does not hold" and not found.claims[0].signed
    )


@pytest.mark.parametrize(("fmt", "mime"), [("PNG", "image/png"), ("WEBP", "image/webp")])
def test_other_formats(signer: Signer, fmt: str, mime: str) -> None:
    made = signer.sign(saved(picture(0, 64), fmt), mime, "digitalCapture")
    found = read_metadata(made)
    assert found.credentials.state == "untrusted" and found.claims == ()
    assert found.credentials.actions == ("created with Toy Generator 2 (digitalCapture)",)


def test_damaged_manifests_are_invalid_never_an_error(signed: bytes) -> None:
    start = signed.index(b"jumdc2pa")
    for place in range(start + 20, start + 2000, 97):
        broken = bytearray(signed)
        broken[place] ^= 0xFF
        found = read_metadata(bytes(broken)).credentials
        assert found.state in ("invalid", "absent") and "\n" not in found.words, place
    assert read_metadata(signed[: start + 300]).credentials.state in ("invalid", "absent")


def test_none_and_one_that_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket, "socket", None)  # nothing is fetched
    assert read_metadata(saved(picture(), "JPEG")).credentials.state == "absent"
    packet = xmp(dcterms__provenance="http://127.0.0.1:9/manifest.c2pa")
    found = read_metadata(saved(picture(), "JPEG", xmp=packet)).credentials
    assert found.state == "unchecked" and "nothing is fetched" in found.words


def test_without_the_package(signed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "c2pa":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    found = read_metadata(signed).credentials
    assert found.state == "unchecked" and "pip install" in found.words


def test_a_list_of_certificates_that_is_none(tmp_path: Path) -> None:
    assert trusted(None) == ""
    with pytest.raises(UserError, match="cannot read"):
        trusted(tmp_path / "none.pem")
    (tmp_path / "x.pem").write_text("-----")
    with pytest.raises(UserError, match="holds no certificate"):
        trusted(tmp_path / "x.pem")
