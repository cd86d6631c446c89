"""The tab Generate: pictures of trained generators by seed, walks between seeds, mixed styles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image

from crossfake.bounds import Bounds, check_bounds
from crossfake.errors import UserError
from crossfake.seeds import parse_seeds
from crossfake.serve.engine.generators import RunGenerators
from crossfake.serve.intake.receiving import Received
from crossfake.serve.web.queue import Tell
from crossfake.serve.web.view import render
from crossfake.serve.web.visits import Case
from crossfake.serve.web.work import Worker

KINDS = {"pictures": "Pictures", "walk": "Walk between seeds", "mix": "Mix styles"}
LAYERS = ("coarse", "middle", "fine")
_MOST = 32  # pictures at once
_STEPS = 12  # pictures from one seed of a walk to the next
_SIZE = 512  # pixels from which on pictures are not enlarged for Analyse


@dataclass(frozen=True)
class Wish:
    """What to make.

    Attributes:
        model: a generator's name.
        kind: one of ``KINDS``.
        seeds: numbers and ranges.
        psi: truncation.
        styles: of a mix: seeds whose styles are taken.
        layers: of a mix: which of them.
    """

    model: str
    kind: str = "pictures"
    seeds: str = "1-8"
    psi: Annotated[float, Bounds(0, 1)] = 0.7
    styles: str = "11-14"
    layers: str = "coarse"

    def __post_init__(self) -> None:
        check_bounds(self, prefix="")
        if self.kind not in KINDS or self.layers not in LAYERS:
            raise UserError("there is no such choice", hint="choose one of the list")


def make(worker: Worker, case: Case, generators: RunGenerators, wish: Wish) -> None:
    """Make pictures in their turn; each can be opened in Analyse.

    Raises:
        UserError: seeds that are none, or the server is busy.
    """
    seeds = parse_seeds(wish.seeds, _MOST)
    styles = parse_seeds(wish.styles, _MOST) if wish.kind == "mix" else []
    if len(seeds) * len(styles) > _MOST * 2:
        raise UserError("these are too many pairs to mix", hint=f"name at most {_MOST * 2} in all")
    if wish.kind == "walk" and len(seeds) > 6:
        raise UserError(f"a walk past {len(seeds)} seeds is long", hint="name 2 to 6 seeds")

    def work(tell: Tell) -> None:
        tell(0.1, "Making pictures")
        if wish.kind == "walk":
            pictures = generators.interpolate(wish.model, seeds, wish.psi, _STEPS)
            case.show(result=render("walk.html", pictures=pictures, seeds=seeds))
        elif wish.kind == "mix":
            if wish.layers not in generators.layers(wish.model):
                raise UserError("this generator has no such styles to mix", hint="choose others, or pictures")
            sheet = generators.mix(wish.model, seeds, styles, wish.layers, wish.psi)
            words = f"The {wish.layers} styles of seeds {wish.styles} (columns) in the pictures of {wish.seeds} (rows)"
            case.show(result=render("sheet.html", sheet=sheet, words=words))
        else:
            pictures = generators.sample(wish.model, seeds, wish.psi)
            for picture, seed in zip(pictures, seeds, strict=True):
                path = case.folder / f"{seed}.png"
                _enlarged(Image.fromarray(picture)).save(path)
                case.files.append(Received(path, f"{Path(wish.model).name}-seed-{seed}.png"))
            shown = list(zip(pictures, seeds, strict=True))
            case.show(result=render("made.html", pictures=shown, case=case))
        case.end()

    worker.run(case, work)


def _enlarged(image: Image.Image) -> Image.Image:
    """A small picture as large as one would publish it: in stamps no face is found."""
    times = max(1, _SIZE // image.width)
    return image.resize((image.width * times, image.height * times), Image.Resampling.LANCZOS)
