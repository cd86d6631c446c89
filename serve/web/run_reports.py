"""Reports that whoever serves the page has named: nothing else below a folder of runs is shown."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

from crossfake.errors import UserError
from crossfake.runs import Run

_DEEPEST, _MOST = 5, 500
_TITLE = re.compile(rb"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)


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
        """The page that an address stands for; None when there is none."""
        return self._root / name if name in self._names() else None

    def _names(self) -> list[str]:
        found = {path for each in self._named for path in ([each] if each.is_file() else _pages(each))}
        inside = [path for path in found if path.resolve().is_relative_to(self._root) and path.is_file()]
        newest = sorted(inside, key=lambda path: (-path.stat().st_mtime, path))
        return [path.relative_to(self._root).as_posix() for path in newest[:_MOST]]


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
