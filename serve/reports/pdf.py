"""The report as PDF: the same page on A4, drawn by WeasyPrint, with the signed block attached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import ImageFile

from crossfake.errors import MissingDependency, UserError

try:
    import pydyf
    import weasyprint
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher
except ImportError as missing:
    raise MissingDependency("weasyprint", extra="app") from missing
except OSError as missing:  # its libraries are the system's
    raise UserError(
        "a PDF needs the library Pango, which is not here",
        hint="install libpango-1.0-0, libpangoft2-1.0-0 and libharfbuzz-subset0 (brew install pango), or take HTML",
    ) from missing

ImageFile.LOAD_TRUNCATED_IMAGES = (
    False  # WeasyPrint lets Pillow fill cut pictures with grey, in the whole process
)


def pdf(page: str, name: str, block: bytes) -> bytes:
    """A4 pages.

    Args:
        page: HTML; nothing that it names is fetched but what is inside it.
        name: of the attached file.
        block: what it holds, as it is, so that it can be filled in later.
    """

    def attach(document: Any, made: Any) -> None:
        kind = {"Type": "/EmbeddedFile", "Subtype": "/application#2fjson"}
        stream = pydyf.Stream([block], extra=kind, compress=False)
        made.add_object(stream)
        title = pydyf.String(name)
        files = {
            "Type": "/Filespec",
            "F": title,
            "UF": title,
            "EF": pydyf.Dictionary({"F": stream.reference}),
        }
        listed = pydyf.Dictionary(files)
        made.add_object(listed)
        names = pydyf.Dictionary({"Names": pydyf.Array([title, listed.reference])})
        made.catalog["Names"] = pydyf.Dictionary({"EmbeddedFiles": names})

    fonts = FontConfiguration()
    html = weasyprint.HTML(string=page, url_fetcher=URLFetcher(allowed_protocols=["data"]))
    sheet = weasyprint.CSS(
        string=_fonts(), font_config=fonts, url_fetcher=URLFetcher(allowed_protocols=["file"])
    )
    return bytes(html.write_pdf(stylesheets=[sheet], font_config=fonts, finisher=attach))


def _fonts() -> str:
    """DejaVu, which comes with matplotlib and knows most alphabets: a server may have no fonts at all."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = (("DejaVuSans.ttf", 400), ("DejaVuSans-Bold.ttf", 700))
    return "".join(
        f"@font-face {{ font-family: 'Report'; font-weight: {weight}; src: url({(folder / file).as_uri()}) }}\n"
        for file, weight in faces
    )
