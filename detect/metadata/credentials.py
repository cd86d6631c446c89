"""C2PA manifests ("Content Credentials"), read and checked with c2pa-python, without any request to the network."""

from __future__ import annotations

import io
import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossfake.detect.metadata.results import Claim, Credentials, cut
from crossfake.detect.metadata.xmp import GENERATED, PARTLY_GENERATED, source_type
from crossfake.errors import UserError, how_to_install

# Of the JUMBF box that holds manifests, whatever the format of the file: its kind (C2PA 2.2, sec. 11.1.4.2)
LABEL = b"jumdc2pa\x00\x11\x00\x10\x80\x00"
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
_MIME = {
    "JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif",
    "TIFF": "image/tiff", "HEIF": "image/heic", "AVIF": "image/avif", "video": "video/mp4",
}  # a table  # fmt: skip
WORDS = {
    "absent": "No C2PA manifest: that says nothing, most files have none, and sites remove them.",
    "valid": "The signature holds, and its signer is on the list of trusted certificates.",
    "untrusted": "The signature holds: nothing was changed since. Who signed is not known here: anyone can make a "
    "certificate with any name in it.",
    "invalid": "The signature does not hold: the file or its manifest was changed after signing.",
    "unchecked": "There is a C2PA manifest, which was not checked",
}
_WHERE = {
    "valid": "C2PA manifest",
    "untrusted": "C2PA manifest of a signer who is not known here",
    "invalid": "C2PA manifest whose signature does not hold",
}
_MOST = 50  # actions, and problems


NONE = Credentials("absent", WORDS["absent"])


def trusted(path: Path | None) -> str:
    """The certificates (PEM) that signers are trusted by; empty without a file.

    Raises:
        UserError: it cannot be read, or holds no certificate.
    """
    if path is None:
        return ""
    try:
        text = path.read_bytes()[: 1 << 22].decode("ascii", "replace")
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror})", hint="name a PEM file of certificates"
        ) from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UserError(f"{path} holds no certificate", hint="name a PEM file, such as C2PA's trust list")
    return text


def read_credentials(
    content: bytes | mmap.mmap, kind: str, anchors: str = ""
) -> tuple[Credentials, tuple[Claim, ...]]:
    """The manifest of a file, and what it says of generators.

    Args:
        content: the whole file.
        kind: PIL's name of the format, or ``video``.
        anchors: certificates (PEM) that signers are trusted by; without any, no signer is.
    """
    if content.find(LABEL) < 0:
        return NONE, ()
    try:
        import c2pa
    except (ImportError, OSError, RuntimeError):  # not there, or not for this machine
        return unchecked(f": {how_to_install('c2pa')}."), ()
    if kind not in _MIME:
        return unchecked(f": not in a file of the format {kind}."), ()
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    settings = {**_OFFLINE, "trust": {"trust_anchors": anchors}} if anchors else _OFFLINE
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(_MIME[kind], file, context=context) as reader,
        ):
            return _found(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return NONE, ()
    except c2pa.C2paError.RemoteManifest:
        return unchecked(": it lies elsewhere, and nothing is fetched."), ()
    except Exception as error:  # of a hostile manifest the library says what it stumbled over
        return Credentials("invalid", f"{WORDS['invalid']} ({cut(error, 120)})"), ()


def unchecked(why: str) -> Credentials:
    """There is a manifest, and why it was not looked at."""
    return Credentials("unchecked", WORDS["unchecked"] + why)


def _found(store: dict[str, Any]) -> tuple[Credentials, tuple[Claim, ...]]:
    manifests: dict[str, Any] = store.get("manifests") or {}
    active = manifests.get(store.get("active_manifest", ""), {})
    status = {"Trusted": "valid", "Valid": "untrusted"}.get(store.get("validation_state", ""), "invalid")
    signature = active.get("signature_info") or {}
    signer = cut(signature.get("common_name") or signature.get("issuer") or "")
    failures = [each.get("code", "") for each in store.get("validation_status") or []]
    actions: list[str] = []
    claims: dict[str, Claim] = {}
    for manifest in manifests.values():
        tool = _generator(manifest)
        for action in _actions(manifest):
            agent = action.get("softwareAgent") or ""
            agent = cut(agent.get("name", "") if isinstance(agent, dict) else agent) or tool
            kind = source_type(str(action.get("digitalSourceType", "")))
            words = cut(str(action.get("action", "")).removeprefix("c2pa."))
            actions.append(f"{words} with {agent or 'an unnamed program'}{f' ({cut(kind)})' if kind else ''}")
            if kind in GENERATED | PARTLY_GENERATED:
                signed = signer if status == "valid" else ""
                claims.setdefault(agent, Claim(agent, _WHERE[status], kind in PARTLY_GENERATED, signed))
    credentials = Credentials(
        status,
        WORDS[status],
        signer,
        cut(signature.get("issuer") or ""),
        _generator(active),
        cut(active.get("title") or ""),
        cut(signature.get("time") or ""),
        tuple(actions[:_MOST]),
        tuple(dict.fromkeys(cut(code) for code in failures[:_MOST])),
    )
    return credentials, tuple(claims.values())


def _generator(manifest: dict[str, Any]) -> str:
    """The program that wrote a manifest."""
    info = manifest.get("claim_generator_info") or [{}]
    first = info[0] if isinstance(info, list) and isinstance(info[0], dict) else {}
    named = f"{first.get('name') or ''} {first.get('version') or ''}".strip()
    return cut(named or manifest.get("claim_generator") or "")


def _actions(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            data = assertion.get("data")
            listed = data.get("actions") if isinstance(data, dict) else None
            yield from (each for each in listed or [] if isinstance(each, dict))
