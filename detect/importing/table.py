"""The table of published detectors: what their files hold, and what they look at."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml

from crossfake.bounds import Bounds, check_bounds
from crossfake.datasets.template import Template
from crossfake.detect.models import MODELS
from crossfake.detect.whole import Interpolation, Side, Whole
from crossfake.errors import UserError
from crossfake.registry import unknown

OWN = Path(__file__).with_name("detectors.yaml")
_TEXTS = ("paper", "licence", "weights")
_LOOKS = ("picture", "face")


@dataclass(frozen=True)
class Sees:
    """What is done with a picture before the network sees it.

    Attributes:
        looks_at: the whole ``picture``, or the square around each ``face``.
        margin: side of that square relative to the face's box, or of the frame relative to the template.
        template: where in a frame the five landmarks of a face are to lie, as
            :class:`crossfake.datasets.template.Template` has them; empty where faces are not turned.
        frame: side of that frame in pixels, before ``resize``; 0 takes as many as the face has.
        resize: as in :class:`crossfake.detect.whole.Whole`, and so are the others.
    """

    looks_at: str = "picture"
    margin: Annotated[float, Bounds(0.25, 6.5)] = 1.3
    template: tuple[tuple[float, float], ...] = ()
    frame: Side = 256
    resize: Side = 0
    squeeze: bool = False
    crop: Side = 0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.looks_at not in _LOOKS:
            raise UserError(f"looks_at is {self.looks_at!r}", hint=f"choose one of {', '.join(_LOOKS)}")
        if self.interpolation not in get_args(Interpolation):
            raise UserError(
                f"interpolation is {self.interpolation!r}",
                hint=f"choose one of {', '.join(get_args(Interpolation))}",
            )
        check_bounds(self)
        if self.template and self.looks_at != "face":
            raise UserError("a picture has no template", hint="give it with looks_at: face")
        self.upright()

    def upright(self) -> Template | None:
        """What faces are turned onto."""
        return Template(self.template, self.frame) if self.template else None

    @property
    def size(self) -> int:
        """Side of what the network sees; of pictures at their own size 224, which nothing depends on."""
        return self.crop or (self.resize if self.squeeze else 0) or 224

    def view(self) -> Whole:
        """The detector's view of whole pictures."""
        return Whole("whole", self.size, 1, self.resize, self.squeeze, self.crop, self.interpolation)  # type: ignore[arg-type]

    def crop_policy(self) -> dict[str, Any]:
        """As a bundle's card has it."""
        if self.looks_at == "picture":
            return {"policy": "none"}
        if template := self.upright():
            turned = {"pixels": "native", "template": template.description()}
            return {"policy": "face", "margin": self.margin, **turned}
        return {"policy": "square", "margin": self.margin}

    def words(self) -> str:
        """For people.

        Example:
            >>> Sees(resize=256, crop=224).words()
            'the whole picture, its shorter side resized to 256 (bilinear), the middle 224×224 of it'
        """
        parts = ["the whole picture"]
        if self.template:
            side = f"{self.frame}×{self.frame}" if self.frame else "at its own pixels"
            parts = [f"each face, turned upright by five landmarks, {self.margin:g} times a template, {side}"]
        elif self.looks_at == "face":
            parts = [f"each face, {self.margin:g} times its box"]
        if self.resize and self.squeeze and not (self.template and self.frame == self.resize):
            parts.append(f"resized to {self.resize}×{self.resize} ({self.interpolation})")
        elif self.resize and not self.squeeze:
            parts.append(f"its shorter side resized to {self.resize} ({self.interpolation})")
        if self.crop:
            parts.append(f"the middle {self.crop}×{self.crop} of it")
        return ", ".join(parts) if len(parts) > 1 or self.template else f"{parts[0]}, at its own pixels"


@dataclass(frozen=True)
class PublishedEntry:
    """A published detector.

    Attributes:
        name: what ``--as`` takes.
        paper: authors, year, title.
        licence: of the weights, as published.
        weights: where the file comes from.
        trained_on: names of what it was trained on.
        sees: what is done with a picture.
        model: names in ``MODELS``, tried in turn.
        options: of the model.
        names: regular expressions and what takes their place.
        unused: of tensors that judging does not need.
        reads: further steps; see :mod:`crossfake.detect.importing.names`.
        backbone: whose weights the tower has, where the file may hold the last layer alone; empty where it holds all.
        classes: 1 logit or 2.
        positive: what a high logit says where there is one: ``fake`` or ``real``.
        differs: what is done otherwise here than by the authors; empty where nothing is known to be.
        checked: what these facts were read in, and what could not be; empty where nobody looked.
    """

    name: str
    paper: str
    licence: str
    weights: str
    trained_on: tuple[str, ...]
    sees: Sees
    model: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    names: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    backbone: str = ""
    classes: Annotated[int, Bounds(1, 2)] = 1
    positive: str = "fake"
    differs: str = ""
    checked: str = ""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.positive not in ("fake", "real"):
            raise UserError(f"positive is {self.positive!r}", hint="write fake or real")

    @property
    def normalisation(self) -> str:
        """For people."""
        if "mean" in self.options:
            return f"mean {self.options['mean']}, std {self.options['std']}"
        return "none, pixels in [0, 1]" if self.model[0].startswith("meso") else "ImageNet's mean and std"

    def facts(self) -> dict[str, Any]:
        """For a bundle's card and for ``--list``."""
        high = "a high logit is fake" if self.positive == "fake" else "a high logit is real: turned round"
        return {
            "name": self.name,
            "paper": self.paper,
            "licence": self.licence,
            "weights": self.weights,
            "looks at": self.sees.words(),
            "normalisation": self.normalisation,
            "classes": high if self.classes == 1 else "of two classes the second is fake",
            "trained on": ", ".join(self.trained_on),
            **({"differs": self.differs} if self.differs else {}),
            "facts from": self.checked or "not checked here",
        }


def load_table(more: Path | None = None) -> dict[str, PublishedEntry]:
    """All entries by name; those of a file of the user's own come before ours of the same name.

    Raises:
        UserError: the file cannot be read, or an entry lacks something or has too much; the entry is named.
    """
    return {**_read(OWN), **(_read(more) if more else {})}


def find(name: str, table: dict[str, PublishedEntry]) -> PublishedEntry:
    """The entry of a name; ``UserError`` with the nearest one where there is none."""
    if name not in table:
        raise unknown("published detector", name, sorted(table))
    return table[name]


def listing(table: dict[str, PublishedEntry]) -> str:
    """What ``--list`` prints: a block for each."""
    blocks = []
    for entry in table.values():
        facts = entry.facts()
        lines = [
            textwrap.fill(
                f"{key + ':':<15}{value}",
                110,
                initial_indent="  ",
                subsequent_indent=" " * 17,
                break_long_words=False,
                break_on_hyphens=False,
            )
            for key, value in facts.items()
            if key != "name"
        ]
        blocks.append("\n".join([entry.name, *lines]))
    return "\n\n".join(blocks)


def _read(path: Path) -> dict[str, PublishedEntry]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({reason})", hint="correct the file") from error
    if not isinstance(content, dict) or not all(isinstance(each, dict) for each in content.values()):
        raise UserError(f"{path} holds no detectors", hint="give an entry under each detector's name")
    return {str(name): _entry(path, str(name), facts) for name, facts in content.items()}


def _entry(path: Path, name: str, facts: dict[str, Any]) -> PublishedEntry:
    def mistake(what: str, hint: str) -> UserError:
        return UserError(f"{path}, {name}: {what}", hint=hint)

    known = {each.name for each in fields(PublishedEntry)} - {"name"}
    needed = {*_TEXTS, "trained_on", "sees", "model"}
    if not needed <= set(facts) <= known:
        missing, odd = sorted(needed - set(facts)), sorted(set(facts) - known)
        raise mistake(
            f"it lacks {', '.join(missing)}" if missing else f"there is no {', '.join(map(str, odd))}",
            f"its keys are {', '.join(sorted(known))}",
        )
    given = dict(facts)
    for key in _TEXTS:
        if not isinstance(given[key], str) or not given[key].strip():
            raise mistake(f"{key} is {given[key]!r}", "write it in words, 'not stated' where it is not known")
    for key in ("differs", "checked"):
        if not isinstance(given.get(key, ""), str):
            raise mistake(f"{key} is {given[key]!r}", "write it in words")
    for key in ("trained_on", "model", "unused", "reads"):
        if key in given:
            given[key] = _texts(given[key])
            if given[key] is None:
                raise mistake(f"{key} is {facts[key]!r}", "give a list of words")
    pairs = given.get("names", [])
    if not isinstance(pairs, list) or not all(_texts(p) is not None and len(p) == 2 for p in pairs):
        raise mistake("names are no pairs", "give [expression, what takes its place]")
    given["names"] = tuple((str(a), str(b)) for a, b in pairs)
    for expression in (*(a for a, _ in given["names"]), *given.get("unused", ())):
        try:
            re.compile(expression)
        except re.error as error:
            raise mistake(f"{expression!r} is no regular expression ({error})", "correct it") from error
    for model in given["model"]:
        if model not in MODELS:
            raise mistake(f"there is no model {model!r}", f"choose one of {', '.join(MODELS.names())}")
    if not isinstance(given.get("options", {}), dict):
        raise mistake("options is no table", "give options: {name: value}")
    try:
        given["sees"] = Sees(**given["sees"])
        return PublishedEntry(name, **given)
    except UserError as error:
        raise mistake(error.message, error.hint or "correct it") from error
    except TypeError as error:
        raise mistake(f"a key does not fit ({error})", "see the comments in detectors.yaml") from error


def _texts(value: Any) -> tuple[str, ...] | None:
    given: Sequence[Any] = [value] if isinstance(value, str) else value if isinstance(value, list) else [None]
    return tuple(given) if all(isinstance(each, str) for each in given) else None
