"""Reports that show when they were changed: two seals of one Ed25519 key.

Inside the file, a block of JSON holds the facts and the SHA-256 of the whole file in which the block's own hash and
signature are zeros: one changed byte anywhere is found, whatever the format, and the file is all that one needs (the
block is ASCII, its keys sorted, so that there is one way to write it). Beside the file, a detached JWS (RFC 7515,
appendix F; ``Ed25519``, RFC 9864) covers its bytes as they are: that one is checked by any JOSE library or OpenSSL.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from crossfake.errors import MissingDependency, UserError

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import OKPKey
except ImportError as missing:
    raise MissingDependency((missing.name or "joserfc").partition(".")[0], extra="app") from missing

KEY, PUBLIC = "report-key.pem", "report-key.pub"
MARKER = b'{"crossfake-report":1,'
_PURPOSE = b"crossfake report 1\n"  # a signature of the same key under anything else does not count here
_NO_HASH, _NO_SIGNATURE = "0" * 64, "0" * 128
_LARGEST_KEY = 10_000
_JWS = "Ed25519"


@dataclass(frozen=True)
class Sealed:
    """What a file says about itself. Nothing of it is to be believed unless ``problem`` is empty.

    Attributes:
        payload: the signed facts.
        public: the public key named in the file, 32 bytes. Anyone can put a key of their own there.
        problem: in what way the file is not what was signed; empty when it is.
    """

    payload: dict[str, Any]
    public: bytes
    problem: str = ""


def key_folder() -> Path:
    """Where the key of this user is kept (``~/.config/crossfake`` on Linux)."""
    return Path(click.get_app_dir("crossfake"))


def open_key(path: Path | None = None) -> Ed25519PrivateKey:
    """The private key, made on first use; the public one lies beside it as ``.pub``.

    Raises:
        UserError: others can read it, it is no Ed25519 key, or it cannot be written.
    """
    path = path or key_folder() / KEY
    try:
        if not path.exists():
            _create(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise UserError(
                f"others can read the key {path}", hint=f"chmod 600 {path}, if you still trust it"
            )
        key = serialization.load_pem_private_key(_small(path), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("another kind of key")
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        beside = path.with_suffix(".pub")
        if not beside.exists() or beside.read_bytes() != pem:
            beside.write_bytes(pem)
    except OSError as error:
        raise UserError(
            f"cannot use the key {path} ({error.strerror})",
            hint="name another, or correct the folder's permissions",
        ) from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no Ed25519 key without a password", hint="name another") from error
    return key


def _create(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # 0600 from the start
    try:
        with open(handle, "wb") as file:
            file.write(pem)
        with contextlib.suppress(FileExistsError):  # another process was first: its key it is
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def read_public_key(path: Path) -> bytes:
    """The 32 bytes of a public key file (PEM).

    Raises:
        UserError: it cannot be read, or is no such key.
    """
    try:
        key = serialization.load_pem_public_key(_small(path))
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("another kind of key")
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror})", hint="name the sender's public key"
        ) from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no public Ed25519 key", hint=f"name the sender's {PUBLIC}") from error
    return bytes(key.public_bytes_raw())


def own_public_key() -> bytes | None:
    """The public key of this user, if there is one yet."""
    file = key_folder() / PUBLIC
    return read_public_key(file) if file.is_file() else None


def fingerprint(public: bytes) -> str:
    """SHA-256 of a public key in groups of four, to be read out on the telephone.

    Example:
        >>> fingerprint(bytes(32))[:14]
        '6668 7aad f862'
    """
    digits = hashlib.sha256(public).hexdigest()
    return " ".join(digits[start : start + 4] for start in range(0, 64, 4))


def detached_jws(document: bytes, key: Ed25519PrivateKey) -> str:
    """A seal to lie beside a file: a compact JWS without its payload, which is the file (docs/api.md)."""
    own = OKPKey.import_key(key)
    header = {"alg": _JWS, "kid": own.thumbprint()}
    whole = jws.serialize_compact(header, document, own, algorithms=[_JWS])
    return str(jws.detach_compact_content(whole))  # type: ignore[attr-defined]


def jws_holds(document: bytes, detached: str, public: bytes) -> bool:
    """Whether a seal beside a file is of it and of this key, whatever the seal itself says of its key."""
    try:
        known = OKPKey.import_key(Ed25519PublicKey.from_public_bytes(public))
        jws.deserialize_compact(detached.strip(), known, algorithms=[_JWS], payload=document)
    except (JoseError, ValueError):
        return False
    return True


def canonical(value: Any) -> bytes:
    r"""JSON in the one way that is signed: sorted keys, no spaces, ASCII, and nothing that HTML would take for its own.

    Raises:
        ValueError: a number that JSON does not know.

    Example:
        >>> canonical({"b": 1, "a": "<é>"})
        b'{"a":"\\u003c\\u00e9\\u003e","b":1}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":  # only strings can hold them
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("ascii")


def blank_block(payload: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """The block to put into the document, once; :func:`seal` fills in what is zero yet."""
    public = key.public_key().public_bytes_raw()
    return _block({**payload, "content": _NO_HASH}, public.hex(), _NO_SIGNATURE)


def seal(document: bytes, block: bytes, key: Ed25519PrivateKey) -> bytes:
    """Sign a document that holds a blank block; the length stays as it is.

    Raises:
        ValueError: the block is not in it exactly once.
    """
    if document.count(MARKER) != 1 or document.count(block) != 1:
        raise ValueError("the document must hold the block once")
    found = json.loads(block)
    payload = {**found["payload"], "content": hashlib.sha256(document).hexdigest()}
    signature = key.sign(_PURPOSE + canonical(payload)).hex()
    return document.replace(block, _block(payload, found["key"], signature))


def unseal(document: bytes) -> Sealed:
    """Check a file against its own block.

    Raises:
        UserError: there is no block in it.
    """
    start = document.find(MARKER)
    if start < 0:
        raise UserError(
            "there is no signature in it", hint="name a report that crossfake wrote, as it was sent"
        )
    try:
        found, length = json.JSONDecoder().raw_decode(document[start:].decode("latin-1"))
        block = document[start : start + length]
        payload, public, signature = found["payload"], bytes.fromhex(found["key"]), found["signature"]
        whole = _block(payload, found["key"], signature) == block and public.hex() == found["key"]
        blank = _block({**payload, "content": _NO_HASH}, found["key"], _NO_SIGNATURE)
        known = payload["content"]
        if len(public) != 32 or bytes.fromhex(signature).hex() != signature or not isinstance(known, str):
            raise ValueError("no key or signature")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Sealed({}, b"", "the signed block is damaged")
    if not whole or document.count(MARKER) != 1:
        return Sealed(payload, public, "the signed block is not as crossfake writes it")
    unsigned = document[:start] + blank + document[start + length :]
    if hashlib.sha256(unsigned).hexdigest() != known:
        return Sealed(payload, public, "words, figures or pictures are not those that were signed")
    if not _signed(public, bytes.fromhex(signature), _PURPOSE + canonical(payload)):
        return Sealed(payload, public, "the signature does not fit the facts")
    return Sealed(payload, public)


def _block(payload: Any, key: str, signature: str) -> bytes:
    return canonical({"crossfake-report": 1, "key": key, "payload": payload, "signature": signature})


def _signed(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _small(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_LARGEST_KEY)
