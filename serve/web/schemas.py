"""What the API answers, as pydantic models made of the dataclasses that it is written from."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, create_model

from crossfake.options import attributes
from crossfake.serve.engine import results

Picture = Annotated[str, Field(pattern="^data:image/png;base64,")]
_made: dict[type, type[BaseModel]] = {}


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(Answer):
    """What is wrong, what to do about it, and a code for programs."""

    error: str = Field(description="What is wrong.")
    hint: str = Field(description="What to do about it; may be empty.")
    code: str = Field(description="Stays the same when the words change.")


class Health(Answer):
    """Whether it is up."""

    status: Literal["ok"] = Field(description="Until all is loaded, requests wait.")
    version: str = Field(description="Of crossfake.")
    detectors: list[str] = Field(description="Their names.")


def model_of(kind: type, **more: Any) -> type[BaseModel]:
    """A model of a dataclass of the engine; pictures are left out of answers unless asked for.

    Args:
        more: fields that its JSON has besides.
    """
    if kind not in _made:
        documented, hints = attributes(kind), typing.get_type_hints(kind)
        fields: dict[str, Any] = dict(more)
        for each in dataclasses.fields(kind):
            hint = hints[each.name]
            if each.name == "heat":  # numbers, for Python alone
                continue
            optional = "ndarray" in str(hint)
            told_of = Field(None if optional else ..., description=_for_json(documented.get(each.name, "")))
            fields[each.name] = (_typed(hint), told_of)
        about = (kind.__doc__ or "").partition("\n\n")[0]
        _made[kind] = create_model(kind.__name__, __base__=Answer, __doc__=about, **fields)
    return _made[kind]


def _typed(hint: Any) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return model_of(typing.cast(type, hint))
    if origin is np.ndarray:
        return Picture
    made: Any = tuple(_typed(part) for part in parts)
    if origin in (types.UnionType, typing.Union):
        return typing.Union.__getitem__(made)
    if origin is tuple and parts[1:] == (Ellipsis,):
        return types.GenericAlias(list, made[:1])
    return types.GenericAlias(origin, made) if origin in (dict, tuple) else hint


def _for_json(text: str) -> str:
    """A sentence of a docstring for readers of JSON."""
    text = re.sub(r":\w+:`[\w.]*?(\w+)`", r"\1", text).replace("``", "`")
    text = re.sub(r"\bNone\b", "null", text)
    return text[:1].upper() + text[1:]


_FORM = Field(alias="schema", description="Version of this form.")  # pydantic has a method of that name
FaceAnalysis = model_of(
    results.FaceAnalysis,
    verdict=(
        str,
        Field(description="What its detectors come to: uncertain where they contradict each other."),
    ),
)
Analysis = model_of(results.Analysis, version_of_form=(int, _FORM))
DetectorFacts = model_of(results.DetectorFacts)


class BatchFile(Answer):
    """A file of a batch: its analysis, or why it has none."""

    name: str = Field(description="To show; cleaned, never a path.")
    analysis: Analysis | None = Field(description="Null if refused.")  # type: ignore[valid-type]
    problem: Error | None = Field(description="Why it was refused.")


class Batch(Answer):
    """What is said of many files."""

    version_of_form: int = _FORM
    files: list[BatchFile] = Field(description="In the order sent.")
    summary: dict[str, int] = Field(description="Files in all, those refused, and those of each verdict.")
