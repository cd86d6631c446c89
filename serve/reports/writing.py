"""A report on one analysis, to be attached and sent: HTML or PDF, and signed so that a later change is found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup
from PIL import Image

from crossfake.detect.metadata.display import claim_words, sections
from crossfake.detect.prediction.annotate import Mark, draw_picture
from crossfake.errors import UserError
from crossfake.files import write_bytes
from crossfake.pages import picture_uri
from crossfake.serve import showing
from crossfake.serve.engine.results import Analysis
from crossfake.serve.engine.stability import scaled
from crossfake.serve.reports.signing import (
    blank_block,
    detached_jws,
    fingerprint,
    jws_holds,
    open_key,
    own_public_key,
    read_public_key,
    seal,
    unseal,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

BLOCK = "crossfake-report.json"
JWS = ".jws"  # at the end of the name of a report's seal beside it
_LARGEST = 256 << 20
_QUALITY = 92
LIMITS = (
    "A probability is that of being fake, among images like those that the detector was validated on. It says nothing "
    "about who made a picture, or why.",
    "A generator that the detector never saw may pass as real. Screenshots, strong compression and small faces hide "
    "traces; retouching and filters leave some.",
    "A heat map shows what moved the score. That need not be the place where a picture was changed.",
    "This is a measurement, not proof. Set it beside the source, the context, and what else is known.",
    "The signature shows that this file is as it was when it was signed. It shows neither that the verdict is right "
    "nor that the picture is what its sender says.",
)


@dataclass(frozen=True)
class Verified:
    """What can be said of a report.

    Attributes:
        status: ``valid``, ``changed``, or ``unknown signer``: it is as it was signed, but by a key that nobody here
            vouched for.
        signer: fingerprint of the key named in the file; empty if none can be read.
        payload: what was signed; to be believed only of a ``valid`` report.
        problem: what is wrong, in words; empty when valid.
    """

    status: Literal["valid", "changed", "unknown signer"]
    signer: str
    payload: dict[str, Any]
    problem: str = ""

    @property
    def valid(self) -> bool:
        """Whether it is as it was signed, by a key that somebody here vouched for."""
        return self.status == "valid"


def write_report(
    analysis: Analysis, folder: Path, fmt: Literal["html", "pdf"] = "html", key: Path | None = None
) -> Path:
    """Write a signed report, and beside it ``NAME.jws``, which others can check without crossfake; say where it is.

    Args:
        analysis: what it is about.
        folder: made if need be; the report's name comes from the file's hash, never from its name.
        fmt: ``html`` (one file, no outside requests) or ``pdf``.
        key: private key, made if it is not there; None: that of the user.

    Raises:
        UserError: no such format, or the key or the folder cannot be used.
        MissingDependency: the extra ``app`` is not installed.

    Example:
        >>> write_report(analyser.analyse(Path("photo.jpg")), Path("reports"))  # doctest: +SKIP
        PosixPath('reports/crossfake-3f1c09a2b4d5.html')
    """
    if fmt not in ("html", "pdf"):
        raise UserError(f"there is no report as {fmt!r}", hint="use html or pdf")
    private = open_key(key)
    document = render(analysis, fmt, private)
    beside = detached_jws(document, private)
    target = folder / f"crossfake-{analysis.sha256[:12]}.{fmt}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(target, document)
        write_bytes(target.with_name(target.name + JWS), beside.encode())
    except OSError as error:
        raise UserError(f"cannot write {target} ({error.strerror})", hint="name another folder") from error
    return target


def render(analysis: Analysis, fmt: str, key: Ed25519PrivateKey) -> bytes:
    """The report as bytes, its seal inside; :func:`~crossfake.serve.reports.signing.detached_jws` makes one beside it.

    Both formats are one page: the PDF is the HTML on A4.
    """
    block = blank_block({"format": fmt, "analysis": analysis.to_json()}, key)
    signer = fingerprint(key.public_key().public_bytes_raw())
    if fmt == "pdf":
        from crossfake.serve.reports.pdf import pdf

        return seal(pdf(page(analysis, signer), BLOCK, block), block, key)
    return seal(page(analysis, signer, block).encode(), block, key)


def page(analysis: Analysis, signer: str, block: bytes = b"") -> str:
    """The report as HTML, with the block that will be filled in; without one it is for the printer."""
    return showing.render(
        "report.html",
        analysis=analysis,
        claim=claim_words(analysis.metadata),
        panel=sections(analysis.metadata) if analysis.metadata else [],
        marked=_marked(analysis),
        limits=LIMITS,
        signer=signer,
        block=Markup(block.decode()),  # canonical JSON holds nothing that HTML would take for its own
    )


def verify_report(path: Path, public_key: Path | None = None) -> Verified:
    """Check a report against its seals, and its signer against a key that one has from the sender.

    Args:
        path: the report, HTML or PDF; a detached JWS beside it, ``NAME.jws``, has to hold as well.
        public_key: the sender's; None: only reports of one's own are known.

    Raises:
        UserError: a file cannot be read, or holds no signature.
    """
    known = read_public_key(public_key) if public_key else own_public_key()
    document = _read(path)
    try:
        sealed = unseal(document)
    except UserError as error:
        raise UserError(f"{path} is no report: {error.message}", hint=error.hint) from error
    signer = fingerprint(sealed.public) if sealed.public else ""
    beside = path.with_name(path.name + JWS)
    if sealed.problem:
        return Verified("changed", signer, sealed.payload, sealed.problem)
    if beside.exists() and not jws_holds(document, _read(beside).decode("ascii", "replace"), sealed.public):
        return Verified(
            "changed", signer, sealed.payload, f"the seal beside it, {beside.name}, is of another file or key"
        )
    if sealed.public != known:
        whose = "the key given" if public_key else "this computer's own"
        return Verified(
            "unknown signer", signer, sealed.payload, f"it was signed with another key than {whose}"
        )
    return Verified("valid", signer, sealed.payload)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            document = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})", hint="name a report") from error
    if len(document) > _LARGEST:
        raise UserError(f"{path} is larger than any report", hint="name a report")
    return document


def _marked(analysis: Analysis) -> str | None:
    """The picture with numbered boxes."""
    if analysis.picture is None:
        return None
    scale = analysis.picture.shape[1] / max(1, analysis.width)
    marks = [
        Mark(scaled(face.box, scale), face.verdict, (f"{face.person + 1}: {face.verdict}",))
        for face in analysis.faces
    ]
    marks += [
        Mark(scaled(each.box, scale), "not judged", ("not judged",)) for each in analysis.missed if each.box
    ]
    title = f"{analysis.verdict}, {len(analysis.faces)} judged"
    drawn = Image.fromarray(draw_picture(analysis.picture, marks, title))
    return picture_uri(drawn, "jpeg", quality=_QUALITY, subsampling=0)
