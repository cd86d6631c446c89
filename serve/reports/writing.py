"""A report on one analysis, to be attached and sent: HTML or PDF, and signed so that a later change is found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from crossfake.datasets.types import Pixels
from crossfake.detect.prediction.annotate import COLOURS, Mark, draw_picture
from crossfake.errors import UserError
from crossfake.files import write_bytes
from crossfake.pages import data_uri
from crossfake.serve.engine.results import Analysis, DetectorFacts, FaceAnalysis, png
from crossfake.serve.reports.signing import (
    blank_block,
    fingerprint,
    open_key,
    own_public_key,
    read_public_key,
    seal,
    unseal,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TEMPLATES = Path(__file__).parent / "templates"
BLOCK = "crossfake-report.json"
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
        return self.status == "valid"


def write_report(
    analysis: Analysis, folder: Path, fmt: Literal["html", "pdf"] = "html", key: Path | None = None
) -> Path:
    """Write a signed report and say where it is.

    Args:
        analysis: what it is about.
        folder: made if need be; the report's name comes from the file's hash, never from its name.
        fmt: ``html`` (one file, no outside requests) or ``pdf``.
        key: private key, made if it is not there; None: that of the user.

    Raises:
        UserError: no such format, or the key or the folder cannot be used.
        MissingDependency: the extra ``app`` is not installed.

    Example:
        >>> write_report(analyser.image(Path("photo.jpg")), Path("reports"))  # doctest: +SKIP
        PosixPath('reports/crossfake-3f1c09a2b4d5.html')
    """
    if fmt not in ("html", "pdf"):
        raise UserError(f"there is no report as {fmt!r}", hint="use html or pdf")
    document = render(analysis, fmt, open_key(key))
    target = folder / f"crossfake-{analysis.sha256[:12]}.{fmt}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(target, document)
    except OSError as error:
        raise UserError(f"cannot write {target} ({error.strerror})", hint="name another folder") from error
    return target


def render(analysis: Analysis, fmt: str, key: Ed25519PrivateKey) -> bytes:
    """The signed report as bytes."""
    block = blank_block({"format": fmt, "analysis": analysis.to_json()}, key)
    shown = content(analysis, fingerprint(key.public_key().public_bytes_raw()))
    if fmt == "pdf":
        from crossfake.serve.reports.pdf import pdf

        return seal(pdf(shown, block), block, key)
    return seal(_html(shown, block), block, key)


def verify_report(path: Path, public_key: Path | None = None) -> Verified:
    """Check a report against its signature, and its signer against a key that one has from the sender.

    Args:
        path: the report, HTML or PDF.
        public_key: the sender's; None: only reports of one's own are known.

    Raises:
        UserError: a file cannot be read, or holds no signature.
    """
    known = read_public_key(public_key) if public_key else own_public_key()
    try:
        with open(path, "rb") as file:
            document = file.read(_LARGEST + 1)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})", hint="name a report") from error
    if len(document) > _LARGEST:
        raise UserError(f"{path} is larger than any report", hint="name a report")
    try:
        sealed = unseal(document)
    except UserError as error:
        raise UserError(f"{path} is no report: {error.message}", hint=error.hint) from error
    signer = fingerprint(sealed.public) if sealed.public else ""
    if sealed.problem:
        return Verified("changed", signer, sealed.payload, sealed.problem)
    if sealed.public != known:
        whose = "the key given" if public_key else "this computer's own"
        return Verified(
            "unknown signer", signer, sealed.payload, f"it was signed with another key than {whose}"
        )
    return Verified("valid", signer, sealed.payload)


@dataclass(frozen=True)
class Shown:
    """A picture of the report: bytes of a PNG or JPEG file, and what it shows."""

    data: bytes
    caption: str

    @property
    def uri(self) -> str:
        kind = "jpeg" if self.data[:2] == b"\xff\xd8" else "png"
        return data_uri(self.data, kind)


def content(analysis: Analysis, signer: str) -> dict[str, Any]:
    """All that a report shows, in words and pictures, whatever its format."""
    return {
        "name": analysis.name,
        "verdict": analysis.verdict,
        "words": analysis.words,
        "warnings": [warning.words for warning in analysis.warnings],
        "main_picture": _marked(analysis),
        "faces": [_face(analysis, face) for face in analysis.faces],
        "missed": _missed(analysis),
        "detectors": [_detector(each) for each in analysis.detectors],
        "facts": _facts(analysis),
        "limits": LIMITS,
        "signer": signer,
        "colours": {name: f"rgb{colour}" for name, colour in COLOURS.items()},
    }


def probability(value: float | None) -> str:
    """Never 0 and never 1: nothing here is that sure.

    Example:
        >>> probability(0.93), probability(0.9999), probability(None)
        ('0.93', 'above 0.99', '–')
    """
    if value is None:
        return "–"
    return "above 0.99" if value > 0.99 else "below 0.01" if value < 0.01 else f"{value:.2f}"


def _face(analysis: Analysis, face: FaceAnalysis) -> dict[str, Any]:
    opinions = [
        {
            "name": name,
            "verdict": each.verdict,
            # without an interval it was never calibrated
            "probability": probability(each.probability) + (" (a score)" if each.low is None else ""),
            "interval": _interval(each.low, each.high),
            "novelty": "–" if each.novelty is None else f"{100 * each.novelty:.0f}%",
        }
        for name, each in face.per_detector.items()
    ]
    stability = [
        {
            "change": point.transform + (f" {point.strength:g}" if point.strength else ""),
            "probability": "no face found" if point.probability is None else probability(point.probability),
            "share": point.probability,
        }
        for point in face.stability
    ]
    pictures = [Shown(png(face.crop), "What the detector saw")]
    if face.heatmap is not None:
        how = f" ({face.heat_method})" if face.heat_method else ""
        pictures.append(Shown(png(face.heatmap), f"Orange speaks for fake, purple for real{how}"))
    if face.spectrum is not None:
        pictures.append(
            Shown(png(face.spectrum), "Spectrum: regular dots or lines may come from a generator")
        )
    nearest = [f"{each.label} ({each.generator}), distance {each.distance:.2f}" for each in face.nearest]
    return {
        "title": _title(analysis, face),
        "verdict": face.verdict,
        "opinions": opinions,
        "warnings": [warning.words for warning in face.warnings],
        "stability": stability,
        "pictures": pictures,
        "chart": _chart(analysis, face) if len(face.frames) > 1 else None,
        "nearest": nearest,
        "notes": face.notes,
    }


def _title(analysis: Analysis, face: FaceAnalysis) -> str:
    if analysis.kind == "video":
        return f"Person {face.person + 1}, {len(face.frames)} frames judged"
    return "The whole picture" if face.box is None else f"Face {face.person + 1}"


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "–"
    ends = probability(low), probability(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _marked(analysis: Analysis) -> Shown | None:
    """The picture with numbered boxes."""
    if analysis.picture is None:
        return None
    scale = analysis.picture.shape[1] / max(1, analysis.width)
    marks = [
        Mark(_scaled(face.box, scale), face.verdict, (f"{face.person + 1}: {face.verdict}",))
        for face in analysis.faces
    ]
    marks += [
        Mark(_scaled(each.box, scale), "not judged", ("not judged",)) for each in analysis.missed if each.box
    ]
    title = f"{analysis.verdict}, {len(analysis.faces)} judged"
    return Shown(_jpeg(draw_picture(analysis.picture, marks, title)), "As sent, turned upright and reduced")


def _scaled(box: Sequence[float] | None, scale: float) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    x, y, width, height = (value * scale for value in box)
    return x, y, width, height


def _jpeg(picture: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()


def _chart(analysis: Analysis, face: FaceAnalysis) -> Shown:
    """Probability over time, of the ensemble or the only detector."""
    from matplotlib.figure import Figure  # without pyplot, which is not made for threads

    timed = all(frame.seconds is not None for frame in face.frames)
    x = [float(frame.frame if frame.seconds is None else frame.seconds) for frame in face.frames]
    figure = Figure(figsize=(7, 2.2), layout="constrained", dpi=150)
    axis = figure.subplots()
    axis.plot(x, [frame.probability for frame in face.frames], color="0.3", linewidth=1.2)
    for verdict, colour in COLOURS.items():
        points = [(at, f.probability) for at, f in zip(x, face.frames, strict=True) if f.verdict == verdict]
        if points:
            paint = tuple(part / 255 for part in colour)
            axis.plot(*zip(*points, strict=True), "o", color=paint, markersize=4, label=verdict)
    if len(analysis.detectors) == 1:
        axis.axhline(analysis.detectors[0].threshold, color="0.6", linewidth=0.8, linestyle="--")
    axis.set(ylim=(-0.03, 1.03), ylabel="probability", xlabel="seconds" if timed else "frame")
    axis.legend(frameon=False, fontsize=8, ncols=3)
    axis.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return Shown(out.getvalue(), "Probability of fake over time")


def _missed(analysis: Analysis) -> list[str]:
    return [
        f"{f'{each.frames} frames' if each.frames else 'One face'}: {each.reason}" for each in analysis.missed
    ]


def _detector(facts: DetectorFacts) -> dict[str, Any]:
    rows = [
        ("Network", f"{facts.model}, sees {facts.sees} at {facts.size}×{facts.size} pixels"),
        ("Says fake from", f"{facts.threshold:.3f}{'' if facts.calibrated else ', uncalibrated'}"),
        ("SHA-256 of its weights", facts.hash),
    ]
    return {"name": facts.name, "rows": rows, "words": facts.words}


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    facts = [
        ("Name, as sent", analysis.name),
        ("SHA-256", analysis.sha256),
        ("Size", f"{analysis.bytes:,} bytes, {analysis.width:,}×{analysis.height:,} pixels, {analysis.kind}"),
    ]
    if analysis.duration is not None:
        facts.append(("Length", f"{analysis.duration:.1f} s"))
    return [
        *facts,
        ("Analysed", f"{analysis.when} (UTC), in {analysis.seconds:.1f} s"),
        ("Software", f"crossfake {analysis.version}"),
    ]


def _html(shown: dict[str, Any], block: bytes) -> bytes:
    from crossfake.pages import environment

    page = environment(TEMPLATES).get_template("report.html").render(shown)
    before, _, after = page.rpartition("<!--block-->")
    return before.encode() + block + after.encode()
