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
from crossfake.charts import Panel, Series, drawn, nice_ticks
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
_SYMBOLS = {"fake": "triangle", "uncertain": "diamond", "real": "circle"}  # in the order of their colours
_HALF = len(_SYMBOLS) + 1  # the colour of the line at one half
Ticks = tuple[tuple[float, str], ...]


def render(template: str, **values: Any) -> str:
    """A template of the page or of reports."""
    return _environment().get_template(template).render(**values).strip()


@cache
def _environment() -> Environment:
    made = environment(_HERE / "web" / "templates" / "page", _HERE / "reports" / "templates")
    used = (
        jpeg,
        png,
        brief,
        opinion,
        tone,
        size,
        sentence,
        clock,
        near,
        strip,
        steadiness,
        change,
        over_time,
    )
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


def _chart(
    title: str, about: str, xlabel: str, points: list[tuple[float, float, str]], ticks: Ticks, joined: bool
) -> dict[str, Any]:
    """Numbers for fake at places from 0, each with a mark and a colour by its verdict; the line across is one half."""
    last = ticks[-1][0] if ticks else 0.0
    lines = [Series("", (0.0, last), (0.5, 0.5), color=_HALF, dots=False)]
    if joined:
        lines.append(Series("", *_columns(points), dots=False))
    for color, (verdict, symbol) in enumerate(_SYMBOLS.items(), 1):
        own = [point for point in points if point[2] == verdict]
        lines += [Series("", *_columns(own), color=color, joined=False, symbol=symbol)] if own else []
    limits = ((0.0, last), (0.0, 1.0))
    ends = ((0.0, "real"), (1.0, "fake"))
    return drawn(
        Panel(title, about, xlabel, "for fake", tuple(lines), ticks, limits, y_ticks=ends), (600, 150)
    )


def _columns(points: list[tuple[float, float, str]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(x for x, _, _ in points), tuple(y for _, y, _ in points)


def strip(face: FaceAnalysis) -> dict[str, Any]:
    """A chart of what a picture's changes make of its number; what has none is marked with ``?``."""
    points, ticks = [], []
    for k, each in enumerate(face.stability):
        if each.probability is not None:
            points.append((float(k), each.probability, each.verdict))
        ticks.append((float(k), f"{change(each)}{'' if each.probability is not None else ' ?'}"))
    return _chart("As sent", "and changed", "change", points, tuple(ticks), joined=False)


def change(point: StabilityPoint) -> str:
    """``as sent``, ``JPEG 70``, ``0.5×``."""
    if point.transform == "resize":
        return f"{point.strength:g}×"
    return f"{point.transform} {point.strength:g}" if point.strength else point.transform


def over_time(face: FaceAnalysis, duration: float | None = None) -> dict[str, Any] | None:
    """A chart of a person's number over a video, with its ``moments``; None without two of them."""
    frames = [each for each in face.frames if each.probability is not None]
    if len(frames) < 2:
        return None
    times = [each.seconds for each in frames if each.seconds is not None]
    timed = len(times) == len(frames)
    places = times if timed else [float(each.frame) for each in frames]
    last = max(*places, duration if timed and duration else 0.0)
    points = [
        (at, float(each.probability or 0), each.verdict) for at, each in zip(places, frames, strict=True)
    ]
    ticks = (*nice_ticks(0.0, last, 8), (last, ""))
    who = "The whole video" if face.box is None else f"Person {face.person + 1}"
    chart = _chart(
        who,
        face.verdict,
        "seconds" if timed else "frame",
        points,
        ticks,
        joined=True,
    )
    return {
        **chart,
        "moments": [(chart["across"](at), each) for at, each in zip(places, frames, strict=True)],
    }


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
