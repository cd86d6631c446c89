"""What is done to pages and docstrings on their way to the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Pages are read in the repository, too, and link to files of the code: those are no part of the site, so their
    names stay without the link. A link to nothing stays as it is, and the build complains of it."""
    docs, here = Path(config["docs_dir"]).resolve(), Path(page.file.abs_src_path).parent

    def without_code(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        return link[1] if target.exists() and not target.is_relative_to(docs) else link[0]

    return _LINK.sub(without_code, markdown)


class Examples(griffe.Extension):
    """Docstrings have one ``Example:``; griffe knows the section as ``Examples:`` and would take this for prose."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
