"""What the HTML pages of all parts share: templates with one style, numbers in words, pictures inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL import Image

HALF_INTERVAL = "± is half of the 95% interval"  # what it means in every table, page and caption
TERMINAL = 100  # columns that a table may have
_SHARED = Path(__file__).parent / "templates"  # style.css


def environment(*templates: Path) -> Environment:
    """The templates of folders, with ``page.html`` to extend; all text is escaped, an undefined name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([*templates, _SHARED])
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    found.filters |= {"number": number, "signed": signed, "duration": duration}
    found.globals["half_interval"] = HALF_INTERVAL
    return found


def picture(folder: Path, name: str | None) -> str | None:
    """A PNG or GIF as a data URI; None when it is not there."""
    file = folder / name if name else None
    if file is None or not file.is_file():
        return None
    return data_uri(file.read_bytes(), file.suffix[1:])


def data_uri(content: bytes, kind: str = "png") -> str:
    """An encoded picture as an address that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture_uri(image: Image.Image, kind: str = "png", **options: Any) -> str:
    """A picture as an address that needs no file; ``options`` are Pillow's for its kind."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return data_uri(out.getvalue(), kind)


def number(value: float, digits: int = 3) -> str:
    """With so many digits after the point: ``0.912``."""
    return f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """With a sign and a true minus: ``+0.120``, ``−0.050``, ``0.000``."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else "\N{MINUS SIGN}") + text


def percent(value: float) -> str:
    """A share in [0, 1] in whole per cent: ``91%``."""
    return f"{100 * value:.0f}%"


def plural(count: int, noun: str, several: str = "") -> str:
    """
    Example:
        >>> plural(1, "shard"), plural(1200, "shard"), plural(0, "person", "people")
        ('1 shard', '1,200 shards', '0 people')
    """
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
