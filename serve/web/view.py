"""An analysis as HTML: everything is escaped, and pictures are inside it."""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from crossfake import __version__
from crossfake.datasets.decode import Unreadable
from crossfake.datasets.types import Pixels
from crossfake.detect.wording import bare_score, in_100, opinion
from crossfake.errors import UserError
from crossfake.pages import data_uri, environment
from crossfake.serve.engine.results import Analysis, FaceAnalysis, StabilityPoint
from crossfake.serve.engine.stability import steady_words
from crossfake.serve.web.security import log_fault

_TEMPLATES = Path(__file__).parent / "templates" / "page"
_LONGEST = 1280  # pixels of a picture on the page
_CROP = 384
TABS = {
    "analyse": "Analyse",
    "compare": "Compare",
    "batch": "Batch",
    "generate": "Generate",
    "experiments": "Experiments",
}  # pages by their address
_STRIP = (560, 150)  # of a stability strip's drawing, in its own units


def render(template: str, **values: Any) -> str:
    """A template of ``templates/page``."""
    return _environment().get_template(template).render(**values).strip()


def problem(error: Exception) -> str:
    """What went wrong, for people. Of a fault of our own no detail: it may hold names of files."""
    if isinstance(error, UserError):
        what, hint = sentence(error.message), sentence(error.hint or "")
    elif isinstance(error, Unreadable):
        what, hint = (
            "This file cannot be opened: it is damaged.",
            "Save or send it again, from where it comes.",
        )
    else:
        log_fault(error)
        what, hint = "Something went wrong here.", "Try again, or another file."
    return render("problem.html", what=what, hint=hint)


@cache
def _environment() -> Environment:
    made = environment(_TEMPLATES)
    used = (jpeg, png, in_100, brief, opinion, tone, size, sentence, clock, near)
    made.filters |= {each.__name__: each for each in used}
    made.globals |= {"TABS": TABS, "VERSION": __version__}
    made.trim_blocks = made.lstrip_blocks = True
    return made


def jpeg(picture: Pixels, longest: int = _LONGEST, quality: int = 85) -> str:
    """A picture uint8 ``[H, W, 3]`` as a data URI, reduced to ``longest`` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _uri(image, "jpeg", quality=quality)


def png(picture: Pixels, least: int = 1) -> str:
    """A picture as a data URI without loss, enlarged by a whole factor to ``least`` pixels or more."""
    times = max(1, math.ceil(least / picture.shape[1]))
    return _uri(Image.fromarray(picture.repeat(times, axis=0).repeat(times, axis=1)), "png")


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return data_uri(out.getvalue(), kind)


def brief(probability: float | None, calibrated: bool) -> str:
    """A number in few words: ``about 73 in 100``; of a detector that was never calibrated ``score 0.73``."""
    if probability is None:
        return ""
    return in_100(probability) if calibrated else f"score {bare_score(probability)}"


def tone(verdict: str) -> str:
    """The class that gives a verdict its colour."""
    return {"fake": "fake", "real": "real", "uncertain": "uncertain"}.get(verdict, "none")


def size(count: int) -> str:
    """``420 kB``, ``3.1 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"


def clock(seconds: float | None) -> str:
    """``0:07.4``; of no time nothing."""
    return "" if seconds is None else f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def near(distance: float) -> str:
    """How alike a training picture is, in words; the distance is 1 less a cosine similarity."""
    return (
        "very alike"
        if distance < 0.05
        else "alike"
        if distance < 0.2
        else "somewhat alike"
        if distance < 0.5
        else "not alike"
    )


def strip(points: tuple[StabilityPoint, ...], threshold: float = 0.5) -> dict[str, Any]:
    """Where a stability strip's marks lie: ``marks`` with x, y and words, ``groups`` with the names below, ``y``."""
    width, height = _STRIP
    step = width / max(1, len(points))
    marks: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for k, point in enumerate(points):
        y = None if point.probability is None else height * (1 - point.probability)
        marks.append(
            {"x": step * (k + 0.5), "y": y, "label": _strength(point), "point": point, "tone": point.verdict}
        )
        if not groups or groups[-1]["name"] != point.transform:
            groups.append({"name": point.transform, "first": step * k, "count": 0})
        groups[-1]["count"] += 1
    for group in groups:
        group["middle"] = group["first"] + step * group["count"] / 2
    return {"marks": marks, "groups": groups, "width": width, "height": height, "y": height * (1 - threshold)}


def _strength(point: StabilityPoint) -> str:
    if point.transform == "as sent":
        return ""
    return f"{point.strength:g}×" if point.transform == "resize" else f"{point.strength:g}"


def steadiness(points: tuple[StabilityPoint, ...], calibrated: bool = True) -> str:
    """One sentence: whether small changes to the file change the answer; of none, that there is none to hold."""
    scores = [point.probability for point in points if point.probability is not None]
    if len(scores) < 2:
        return steady_words(points)
    ends = [in_100(each) if calibrated else bare_score(each) for each in (min(scores), max(scores))]
    span = f"stays {ends[0]}" if ends[0] == ends[1] else f"goes from {ends[0]} to {ends[1]}"
    what = "chance of fake" if calibrated else "score"
    return f"Recompressed, resized and blurred a little, the {what} {span}. {steady_words(points)}"


def boxes(analysis: Analysis) -> list[dict[str, Any]]:
    """Where faces lie, in percent of the picture, the missed ones last."""
    found: list[dict[str, Any]] = []
    for face in analysis.faces:
        if face.box is not None:
            found.append({"number": face.person + 1, "verdict": face.verdict, **_percent(face.box, analysis)})
    for missed in analysis.missed:
        if missed.box is not None:
            found.append({"number": "", "verdict": "not judged", **_percent(missed.box, analysis)})
    return found


def _percent(box: tuple[float, float, float, float], analysis: Analysis) -> dict[str, float]:
    x, y, width, height = box
    left, top = max(0.0, x / analysis.width), max(0.0, y / analysis.height)
    return {
        "left": round(100 * left, 2),
        "top": round(100 * top, 2),
        "width": round(100 * min(1 - left, width / analysis.width), 2),
        "height": round(100 * min(1 - top, height / analysis.height), 2),
    }


def thresholds(analysis: Analysis) -> dict[str, float]:
    """From which probability on each detector says fake: one half, whichever share of fakes was named."""
    return dict.fromkeys((facts.name for facts in analysis.detectors), 0.5)


def threshold(analysis: Analysis, face: FaceAnalysis) -> float:
    """That of the verdict that stands for a face."""
    return 0.5


def sentence(text: str) -> str:
    """With a capital at the start and a full stop at the end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".!?" else ".")


def curve(
    face: FaceAnalysis, links: list[str], limit: float, duration: float | None, total: int
) -> dict[str, Any]:
    """A person's score over time, on a chart of 600 by 150 units: ``marks``, the ``path`` through them, ``worst``."""
    width, height = 600, 150
    timed = bool(duration) and all(each.seconds is not None for each in face.frames)
    whole = duration if timed else max(1, total - 1)
    marks: list[dict[str, Any]] = []
    for each, link in zip(face.frames, links, strict=True):
        if each.probability is None:
            continue
        at = each.seconds if timed else each.frame
        words = f"{brief(each.probability, face.opinion.low is not None)} for fake, frame {each.frame}"
        if each.seconds is not None:
            words += f", at {clock(each.seconds)}"
        x, y = width * min(1.0, (at or 0) / (whole or 1)), height * (1 - each.probability)
        marks.append({"x": round(x, 1), "y": round(y, 1), "frame": each, "link": link, "words": words})
    path = "M" + "L".join(f"{mark['x']} {mark['y']}" for mark in marks)
    worst = max(range(len(marks)), key=lambda k: marks[k]["frame"].probability, default=0)
    ends = (clock(0.0), clock(duration)) if timed else ("first frame", "last frame")
    return {
        "face": face,
        "marks": marks,
        "path": path,
        "worst": worst,
        "y": height * (1 - limit),
        "start": ends[0],
        "end": ends[1],
    }
