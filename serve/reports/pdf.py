"""The report as PDF: the same words and pictures as in HTML, on A4."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from crossfake.detect.prediction.annotate import COLOURS
from crossfake.errors import MissingDependency

try:
    from fpdf import FPDF, FontFace
    from fpdf.enums import XPos, YPos
    from fpdf.fonts import TTFFont
except ImportError as missing:
    raise MissingDependency("fpdf2", extra="app") from missing

_FONT = "DejaVu Sans"  # comes with matplotlib, and knows most alphabets
_INK, _SOFT, _LINE = (30, 32, 36), (98, 102, 110), (220, 216, 206)
_AMBER = COLOURS["uncertain"]
_MAIN, _CROP, _NARROW = (
    95.0,
    38.0,
    42.0,
)  # millimetres: height of the picture and of crops; width of a caption


def pdf(shown: dict[str, Any], block: bytes) -> bytes:
    """A4 pages with a block of JSON attached as it is.

    Args:
        shown: as :func:`crossfake.serve.reports.writing.content` makes it.
        block: attached without compression, so that it can be filled in later.
    """
    page = _Page()
    page.heading(shown)
    for face in shown["faces"]:
        page.face(face)
    if shown["missed"]:
        page.part("Not judged")
        page.items(shown["missed"])
    page.part("Method")
    for each in shown["detectors"]:
        page.subpart(each["name"])
        page.rows(each["rows"])
        for text in each["words"]:
            page.paragraph(text)
    page.part("Limits")
    page.items(shown["limits"])
    page.part("The file")
    page.rows(shown["facts"])
    page.part("Signature")
    page.paragraph(
        "Compare this fingerprint of the signer's key with one that you have from the sender by another way:"
    )
    page.paragraph(shown["signer"], size=8.5, bold=True)
    page.paragraph("detect verify-report THIS_FILE --public-key SENDER.pub", size=8.5)
    page.paragraph("finds any change of this file: of a word, a number or a picture.", colour=_SOFT)
    page.embed_file(bytes=block, basename="crossfake-report.json", desc="What was signed", compress=False)
    return bytes(page.output())


class _Page(FPDF):
    def __init__(self) -> None:
        super().__init__(format="A4")
        import matplotlib

        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.add_font(_FONT, "", fonts / "DejaVuSans.ttf")
        self.add_font(_FONT, "B", fonts / "DejaVuSans-Bold.ttf")
        self.set_margins(18, 16)
        self.set_auto_page_break(True, 18)
        self.c_margin = 0
        self.set_fill_color(255, 255, 255)
        self.set_lang("en")
        self.set_creator("crossfake")
        self.alias_nb_pages()
        self.add_page()

    def footer(self) -> None:
        self.set_y(-13)
        self._style(7.5, colour=_SOFT)
        self.cell(0, 5, f"crossfake report · page {self.page_no()} of {{nb}}", align="R")

    def _style(self, size: float, bold: bool = False, colour: tuple[int, int, int] = _INK) -> None:
        self.set_font(_FONT, "B" if bold else "", size)
        self.set_text_color(*colour)

    def normalize_text(self, text: str) -> str:
        """Letters that the font lacks are shown as such, rather than left out."""
        font = self.fonts.get(_FONT.lower())
        known = font.cmap if isinstance(font, TTFFont) else {}
        shown = "".join(c if ord(c) in known or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
        return super().normalize_text(shown)

    def box(self, colour: tuple[int, int, int], x: float, y: float, width: float, height: float) -> None:
        self.set_fill_color(*colour)
        self.rect(x, y, width, height, "F")
        self.set_fill_color(255, 255, 255)  # tables fill their cells with it

    def paragraph(
        self, text: str, size: float = 9.5, bold: bool = False, colour: tuple[int, int, int] = _INK
    ) -> None:
        self._style(size, bold, colour)
        self.multi_cell(0, size * 0.53, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(1.2)

    def part(self, text: str, room: float = 30) -> None:
        if self.will_page_break(room):
            self.add_page()
        self.ln(4)
        self.start_section(text)
        self.paragraph(text, 13, bold=True)

    def subpart(self, text: str) -> None:
        if self.will_page_break(25):
            self.add_page()
        self.ln(1)
        self.paragraph(text, 10, bold=True)

    def chip(self, verdict: str, size: float) -> None:
        """The verdict with a bar of its colour; the word is always there."""
        self._style(size, bold=True)
        height = size * 0.55
        self.box(COLOURS[verdict], self.l_margin, self.y, 2, height)
        self.set_x(self.l_margin + 4)
        self.cell(0, height, verdict, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(2)

    def heading(self, shown: dict[str, Any]) -> None:
        self.set_title(f"{shown['name']}: {shown['verdict']}")
        self.paragraph("Report on one file", 8.5, colour=_SOFT)
        self.paragraph(shown["name"], 17, bold=True)
        self.chip(shown["verdict"], 14)
        self.paragraph(shown["words"], 11)
        self.warn(shown["warnings"])
        if shown["main_picture"]:
            self.ln(1)
            self.pictures([shown["main_picture"]], _MAIN)

    def face(self, face: dict[str, Any]) -> None:
        self.part(face["title"], room=75)
        self.chip(face["verdict"], 11)
        heads = ("Detector", "Verdict", "Probability of fake", "95% interval", "More unusual than*")
        body = [[each[key] for key in ("name", "verdict", "probability", "interval", "novelty")]
                for each in face["opinions"]]  # fmt: skip
        self._table([heads, *body], (4, 2.2, 3, 2.8, 3.2))
        self.paragraph(
            "* share of validation images that are less unusual; – is not known. A score is no probability.",
            7.5,
            colour=_SOFT,
        )
        self.warn(face["warnings"])
        self.pictures(face["pictures"], _CROP)
        if face["chart"]:
            self.pictures([face["chart"]], 52)
        if face["stability"]:
            self.subpart("Does the score hold?")
            for point in face["stability"]:
                self.bar(point)
            self.paragraph(
                "Probability of fake after the picture was saved anew, or made smaller and larger again.",
                7.5,
                colour=_SOFT,
            )
        if face["nearest"]:
            self.paragraph(f"Most alike among the training pictures: {'; '.join(face['nearest'])}.", 8.5)
        for text in face["notes"]:
            self.paragraph(text, 8.5, colour=_SOFT)

    def bar(self, point: dict[str, Any]) -> None:
        if self.will_page_break(5):
            self.add_page()
        self._style(8.5)
        self.cell(32, 4.6, point["change"])
        x, y, width = self.x, self.y + 1.4, 60.0
        self.box(_LINE, x, y, width, 1.8)
        if point["share"] is not None:
            self.box(_SOFT, x, y, max(0.4, width * point["share"]), 1.8)
        self.set_x(x + width + 4)
        self.cell(0, 4.6, point["probability"], new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def warn(self, texts: list[str]) -> None:
        for text in texts:
            self._style(9)
            top, page = self.y, self.page
            self.set_x(self.l_margin + 4)
            self.multi_cell(0, 4.8, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            if self.page == page:
                self.box(_AMBER, self.l_margin, top, 1.2, self.y - top)
            self.ln(1)

    def items(self, texts: Any) -> None:
        for text in texts:
            self._style(9.5)
            if self.will_page_break(10):
                self.add_page()
            self.cell(4, 5, "•")
            self.multi_cell(0, 5, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            self.ln(1)

    def rows(self, rows: Any) -> None:
        """Pairs of a word and what it says."""
        self._style(8.5)
        with self.table(
            borders_layout="NONE",
            col_widths=(3, 9),
            text_align="LEFT",
            line_height=4.6,
            first_row_as_headings=False,
        ) as table:
            for title, value in rows:
                row = table.row()
                row.cell(title, style=FontFace(color=_SOFT))
                row.cell(value)
        self.ln(2)

    def _table(self, rows: list[Any], widths: tuple[float, ...]) -> None:
        self._style(8.5)
        self.set_draw_color(*_LINE)
        with self.table(
            rows,
            borders_layout="HORIZONTAL_LINES",
            col_widths=widths,
            text_align=("LEFT", "LEFT", "RIGHT", "RIGHT", "RIGHT"),
            line_height=5,
            headings_style=FontFace(emphasis="", color=_SOFT),
        ):
            pass
        self.ln(1)

    def pictures(self, pictures: Any, height: float) -> None:
        """Side by side, each with its caption below; a new line where they are too wide."""
        x, row = self.l_margin, 0.0
        for shown in pictures:
            with Image.open(io.BytesIO(shown.data)) as image:
                ratio = image.width / image.height
            width = min(self.epw, height * ratio)
            if x > self.l_margin and x + width > self.l_margin + self.epw:
                x, self.y = self.l_margin, self.y + row + 3
                row = 0.0
            if self.will_page_break(width / ratio + 12):
                self.add_page()
                x = self.l_margin
            top = self.y
            self.image(io.BytesIO(shown.data), x, top, w=width, alt_text=shown.caption)
            self._style(7.5, colour=_SOFT)
            self.set_xy(x, top + width / ratio + 1)
            self.multi_cell(
                max(width, _NARROW), 3.8, shown.caption, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT
            )
            row = max(row, self.y - top)
            x, self.y = x + max(width, _NARROW) + 4, top
        self.set_xy(self.l_margin, self.y + row + 2)
