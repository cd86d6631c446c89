"""Reports that whoever serves the page has named, and what they embed: nothing else below a folder of runs is shown."""

from __future__ import annotations

import html
import os
import re
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from crossfake.errors import UserError
from crossfake.runs import Run

_DEEPEST, _MOST = 5, 500
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp"})
_TITLE = re.compile(rb"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)
_URL = re.compile(r"""url\(\s*["']?([^"')]+)""")
_SOURCES = {"img": "src", "image": "href", "source": "src", "video": "poster", "link": "href"}


class Reports:
    """Pages by the path that they have below a folder.

    Args:
        root: the folder of runs.
        named: pages, or folders whose pages are meant, those of finished runs; all of them below ``root``.

    Raises:
        UserError: one of them is not there, is no page, or lies elsewhere.
    """

    def __init__(self, root: Path | None = None, named: tuple[Path, ...] = ()) -> None:
        self._root, self._named = (root or Path()).resolve(), tuple(path.resolve() for path in named)
        for given, path in zip(named, self._named, strict=True):
            if not path.is_relative_to(self._root):
                raise UserError(f"{given} is not below {root}", hint="name the folder of both with --runs")
            if not (path.is_dir() or (path.is_file() and path.suffix == ".html")):
                raise UserError(
                    f"{given} is no page and no folder", hint="name an HTML file, or a run with --reports"
                )

    def pages(self) -> dict[str, str]:
        """Addresses below ``runs/`` with the pages' titles, the newest first."""
        return {name: _title(self._root / name) for name in self._names()}

    def file(self, name: str) -> Path | None:
        """What an address stands for: a page, or a picture or style sheet that a page embeds; else None."""
        pages = self._names()
        shown = name in pages or any(name in self._embedded(page) for page in pages)
        return self._root / name if shown else None

    def _names(self) -> list[str]:
        found = {path for each in self._named for path in ([each] if each.is_file() else _pages(each))}
        inside = [path for path in found if path.resolve().is_relative_to(self._root) and path.is_file()]
        newest = sorted(inside, key=lambda path: (-path.stat().st_mtime, path))
        return [path.relative_to(self._root).as_posix() for path in newest[:_MOST]]

    def _embedded(self, page: str) -> frozenset[str]:
        path = self._root / page
        found = set(self._below(path, *_sources(path, path.stat().st_mtime_ns)))
        for sheet in [each for each in found if each.endswith(".css")]:
            path = self._root / sheet
            found |= set(self._below(path, *_urls(path.read_text("utf-8", "replace"))))
        return frozenset(found)

    def _below(self, base: Path, *addresses: str) -> list[str]:
        """Those of the addresses on a page that are pictures or style sheets below the root, no link leading out."""
        found = []
        for address in addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not parts.path or "\0" in unquote(parts.path):
                continue
            path = Path(os.path.normpath(base.parent / unquote(parts.path)))
            fine = path.suffix.lower() in _PICTURES | {".css"} and path.resolve().is_relative_to(self._root)
            if fine and path.is_relative_to(self._root) and path.is_file():
                found.append(path.relative_to(self._root).as_posix())
        return found


def _pages(top: Path) -> list[Path]:
    """Those below a folder but for runs that are not finished; links to elsewhere are not followed."""
    found = []
    for folder, folders, files in os.walk(top):
        here = Path(folder)
        deep = len(here.relative_to(top).parts) >= _DEEPEST
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        run = Run(here)
        if run.config_file.exists() and not run.finished and not (here / "report.html").exists():
            folders[:] = []
            continue
        found += [here / name for name in files if name.endswith(".html") and not name.startswith(".")]
    return found


def _title(path: Path) -> str:
    with open(path, "rb") as file:
        match = _TITLE.search(file.read(4096))
    return html.unescape(" ".join(match[1].decode("utf-8", "replace").split())) if match else "Report"


@lru_cache(maxsize=_MOST)
def _sources(page: Path, changed: int) -> tuple[str, ...]:
    """Addresses of what a page embeds, as of its last change."""
    parser = _Embeds()
    parser.feed(page.read_text("utf-8", "replace"))
    return tuple(each for each in parser.found if not each.startswith("data:"))


def _urls(style: str) -> list[str]:
    return _URL.findall(style)


class _Embeds(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._style = tag == "style"
        if tag != "link" or "stylesheet" in (given.get("rel") or ""):
            self.found.append(given.get(_SOURCES.get(tag, "")) or "")
        for each in (given.get("srcset") or "").split(","):
            self.found += each.split()[:1]
        self.found += _urls(given.get("style") or "")

    def handle_data(self, data: str) -> None:
        if self._style:
            self.found += _urls(data)

    def handle_endtag(self, tag: str) -> None:
        self._style = False
