import json
import os
from pathlib import Path

import pytest

from crossfake.errors import UserError
from crossfake.serve.reports.signing import (
    MARKER,
    blank_block,
    canonical,
    fingerprint,
    open_key,
    own_public_key,
    read_public_key,
    seal,
    unseal,
)

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
PAYLOAD = {"verdict": "fake", "probability": 0.93, "name": 'a</script>"{"crossfake-report":1,é'}


def _sealed(tmp_path: Path) -> bytes:
    key = open_key(tmp_path / "key.pem")
    block = blank_block(PAYLOAD, key)
    return seal(b"before 0.93 \xff\x00" + block + b"\nafter", block, key)


def test_what_was_sealed_opens_as_it_was(tmp_path: Path) -> None:
    document = _sealed(tmp_path)
    found = unseal(document)
    assert found.problem == "" and found.public == read_public_key(tmp_path / "key.pub")
    assert {name: found.payload[name] for name in PAYLOAD} == PAYLOAD
    assert len(document) == len(b"before 0.93 \xff\x00\nafter") + len(
        blank_block(PAYLOAD, open_key(tmp_path / "key.pem"))
    )
    assert b"</script>" not in document  # a name cannot leave the block in HTML


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    document = _sealed(tmp_path)
    for place in range(len(document)):
        changed = bytearray(document)
        changed[place] ^= 1
        try:
            assert unseal(bytes(changed)).problem, place
        except UserError:
            assert document.find(MARKER) <= place < document.find(MARKER) + len(MARKER)


def test_additions_and_rewritings_are_found(tmp_path: Path) -> None:
    document = _sealed(tmp_path)
    start = document.find(MARKER)
    block = document[start : document.rfind(b"}") + 1]
    loose = json.dumps(json.loads(block)).encode()  # the same facts, written with spaces
    key_twice = block.replace(b'"key":', b'"key":"00","key":', 1)
    upper = block.replace(
        json.loads(block)["signature"].encode(), json.loads(block)["signature"].upper().encode()
    )
    for changed in (
        document + b" ",
        b" " + document,
        document + block,
        document.replace(block, key_twice),
        document.replace(block, upper),
        document[:-1],
    ):
        assert unseal(changed).problem
    with pytest.raises(UserError, match="no signature"):
        unseal(document.replace(block, loose))
    for damaged in (
        MARKER,
        MARKER + b"}" * 3,
        MARKER + b'"key":' + b"[" * 100_000,
        MARKER + b'"payload":NaN}',
    ):
        assert unseal(b"x" + damaged).problem == "the signed block is damaged"


def test_a_block_signed_anew_by_another_is_whole_but_names_the_other(tmp_path: Path) -> None:
    _sealed(tmp_path)
    other = open_key(tmp_path / "other" / "key.pem")
    block = blank_block(PAYLOAD, other)
    found = unseal(seal(b"x" + block, block, other))
    assert found.problem == "" and found.public != read_public_key(tmp_path / "key.pub")
    # the other's signature under the first one's name
    theirs = read_public_key(tmp_path / "key.pub").hex().encode()
    swapped = seal(b"x" + block, block, other).replace(found.public.hex().encode(), theirs)
    assert unseal(swapped).problem


def test_a_signature_is_of_the_purpose_too(tmp_path: Path) -> None:
    """A plain Ed25519 signature of the same key over the same facts is none here."""
    document, key = _sealed(tmp_path), open_key(tmp_path / "key.pem")
    found = json.loads(document[document.find(MARKER) : document.rfind(b"}") + 1])
    plain = key.sign(canonical(found["payload"])).hex().encode()
    assert (
        unseal(document.replace(found["signature"].encode(), plain)).problem
        == "the signature does not fit the facts"
    )
    ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(found["key"])).verify(
        bytes.fromhex(found["signature"]), b"crossfake report 1\n" + canonical(found["payload"])
    )  # as docs/api.md says, for other programs


def test_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    public = open_key(path).public_key().public_bytes_raw()
    assert (
        open_key(path).public_key().public_bytes_raw() == public == read_public_key(path.with_suffix(".pub"))
    )
    assert sorted(each.name for each in path.parent.iterdir()) == ["key.pem", "key.pub"]
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
        path.chmod(0o640)
        with pytest.raises(UserError, match="others can read"):
            open_key(path)


def test_the_users_own_key_lies_in_the_config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert own_public_key() is None
    key = open_key()
    assert own_public_key() == key.public_key().public_bytes_raw()
    assert len(fingerprint(bytes(32)).split()) == 16


def test_wrong_keys_are_user_errors(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    (tmp_path / "none.pem").write_text("no key")
    (tmp_path / "none.pem").chmod(0o600)
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ec.pem").write_bytes(pem)
    (tmp_path / "ec.pem").chmod(0o600)
    for name in ("none.pem", "ec.pem"):
        with pytest.raises(UserError, match="no Ed25519 key"):
            open_key(tmp_path / name)
        with pytest.raises(UserError, match="no public Ed25519 key"):
            read_public_key(tmp_path / name)
    with pytest.raises(UserError, match="cannot read"):
        read_public_key(tmp_path / "missing.pub")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use the key"):
        open_key(tmp_path / "file" / "key.pem")


def test_canonical_refuses_what_json_does_not_know() -> None:
    with pytest.raises(ValueError):
        canonical({"p": float("nan")})
