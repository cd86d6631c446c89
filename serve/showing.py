"""An analysis as HTML, for the page and for reports: one set of templates, and what they say numbers and pictures with.

All text is escaped, and pictures are inside.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from crossfake import __version__
from crossfake.datasets.types import Pixels
from crossfake.detect.prediction.annotate import COLOURS
from crossfake.detect.wording import bare_score, in_100, opinion
from crossfake.pages import environment, picture_uri
from crossfake.serve.engine.results import FaceAnalysis, StabilityPoint
from crossfake.serve.engine.stability import steady_words
from crossfake.serve.engine.wording import sentence

_HERE = Path(__file__).parent
_LONGEST = 1280  # pixels of a picture on the page
TABS = {"analyse": "Analyse", "compare": "Compare", "batch": "Batch"}  # pages by their address
_STRIP = (560, 150)  # of a stability strip's drawing, in its own units


def render(template: str, **values: Any) -> str:
    """A template of the page or of reports."""
    return _environment().get_template(template).render(**values).strip()


@cache
def _environment() -> Environment:
    made = environment(_HERE / "web" / "templates" / "page", _HERE / "reports" / "templates")
    used = (jpeg, png, brief, opinion, tone, size, sentence, clock, near)
    made.filters |= {each.__name__: each for each in used}
    made.globals |= {"TABS": TABS, "VERSION": __version__, "COLOURS": COLOURS}
    made.trim_blocks = made.lstrip_blocks = True
    return made


def jpeg(picture: Pixels, longest: int = _LONGEST, quality: int = 85) -> str:
    """A picture uint8 ``[H, W, 3]`` as a data URI, reduced to ``longest`` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return picture_uri(image, "jpeg", quality=quality)


def png(picture: Pixels, least: int = 1) -> str:
    """A picture as a data URI without loss, enlarged by a whole factor to ``least`` pixels or more."""
    times = max(1, math.ceil(least / picture.shape[1]))
    return picture_uri(Image.fromarray(picture.repeat(times, axis=0).repeat(times, axis=1)))


def brief(probability: float | None, calibrated: bool) -> str:
    """A number in few words: ``about 73 in 100``; of a detector that was never calibrated ``score 0.73``."""
    if probability is None:
        return ""
    return in_100(probability) if calibrated else f"score {bare_score(probability)}"


def tone(verdict: str) -> str:
    """The class that gives a verdict its colour."""
    return verdict if verdict in ("fake", "real", "uncertain") else "none"


def size(count: int) -> str:
    """``420 kB``, ``3.1 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"


def near(distance: float) -> str:
    """How alike a training picture is, in words; the distance is 1 less a cosine similarity."""
    words = ((0.05, "very alike"), (0.2, "alike"), (0.5, "somewhat alike"), (math.inf, "not alike"))
    return next(word for most, word in words if distance < most)


def clock(seconds: float | None) -> str:
    """``0:07.4``; of no time nothing."""
    return "" if seconds is None else f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def strip(points: tuple[StabilityPoint, ...]) -> dict[str, Any]:
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
    return {"marks": marks, "groups": groups, "width": width, "height": height}


def _strength(point: StabilityPoint) -> str:
    if point.transform == "as sent":
        return ""
    return f"{point.strength:g}×" if point.transform == "resize" else f"{point.strength:g}"


def steadiness(face: FaceAnalysis) -> str:
    """One sentence: whether small changes to the file change the answer; of none, that there is none to hold."""
    scores = [point.probability for point in face.stability if point.probability is not None]
    if len(scores) < 2:
        return steady_words(face.stability)
    calibrated = face.opinion.low is not None
    ends = [in_100(each) if calibrated else bare_score(each) for each in (min(scores), max(scores))]
    span = f"stays {ends[0]}" if ends[0] == ends[1] else f"goes from {ends[0]} to {ends[1]}"
    what = "chance of fake" if calibrated else "score"
    return f"Recompressed, resized and blurred a little, the {what} {span}. {steady_words(face.stability)}"


def curve(face: FaceAnalysis, links: list[str], duration: float | None, total: int) -> dict[str, Any]:
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
        "start": ends[0],
        "end": ends[1],
    }
