"""The description of the API: schemas made from the dataclasses it answers with, and a page that needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.serve.engine import results
from crossfake.serve.web.security import STRICT

TEMPLATES = Path(__file__).parent / "templates"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
_PICTURE = {"type": "string", "pattern": "^data:image/png;base64,"}

ERROR = {
    "type": "object",
    "description": "What is wrong, what to do about it, and a code for programs.",
    "properties": {
        "error": {"type": "string", "description": "What is wrong."},
        "hint": {"type": "string", "description": "What to do about it; may be empty."},
        "code": {"type": "string", "description": "Stays the same when the words change."},
    },
    "required": ["error", "hint", "code"],
    "additionalProperties": False,
}

ABOUT = (
    "Judges faces in pictures and videos. A probability is that of being fake, among images like those that the "
    "detector was validated on. A generator that it never saw may pass as real. It is not proof. "
    "Files are kept in a private folder until the request is answered, and then deleted; names are not logged."
)
# What each code stands for, with one that is often met
_ERRORS = {
    400: ("The request is no readable form.", "malformed", "there is no file in a field 'file'"),
    401: ("The token is missing or wrong.", "no-token", "this needs the token"),
    403: ("A page of another site sent this.", "wrong-origin", "another site's page sent this"),
    408: ("The rest of the request did not come in time.", "too-slow", "the rest of the request did not come"),
    413: ("Too many bytes, pixels, files or seconds.", "too-large", "the image has more than 32 MiB"),
    415: ("Neither a picture nor a video, by its content.", "not-an-image", "this is neither a picture nor a video"),
    421: ("The Host header is not a name of this server.", "wrong-host", "this server does not answer to that name"),
    422: ("A damaged or unsafe file, or an unknown field.", "damaged", "the file cannot be read (truncated)"),
    429: ("Too many requests; Retry-After says when.", "too-many-requests", "more than 60 in a minute"),
    500: ("A bug, or a damaged detector.", "internal", "something went wrong here"),
    503: ("Busy, or loading; Retry-After says when.", "busy", "34 requests are ahead"),
    507: ("The disk is full.", "no-space", "the file cannot be stored"),
}  # fmt: skip
_GUARDED = (401, 403, 421)
_UPLOADS = (400, 408, 413, 415, 422, 429, 500, 503, 507)


def operation(name: str) -> dict[str, Any]:
    """The keyword arguments that describe one route to FastAPI."""
    says = _OPERATIONS[name]
    made: dict[str, Any] = {
        "summary": says["summary"],
        "description": says["description"],
        "operation_id": name,
        "response_model": None,
        "responses": {200: _answers(name, says)} | {code: _error(code) for code in says["errors"]},
    }
    if "form" in says:
        form = {
            "type": "object",
            "properties": says["form"],
            "required": [*says["form"]],
            "additionalProperties": False,
        }
        content = {"multipart/form-data": {"schema": form}}
        made["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return made


def _answers(name: str, says: dict[str, Any]) -> dict[str, Any]:
    kind = says.get("type", "application/json")
    content = {"schema": says["schema"]}
    if kind == "application/json":
        content["example"] = example(name)
    return {"description": says["answer"], "content": {kind: content}}


def _error(code: int) -> dict[str, Any]:
    about, name, words = _ERRORS[code]
    shown = {"error": words, "hint": "what to do about it", "code": name}
    content = {"application/json": {"schema": _ref("Error"), "example": shown}}
    made: dict[str, Any] = {"description": about, "content": content}
    if code in (429, 503):
        retry = {"description": "Seconds.", "schema": {"type": "integer"}, "required": True}
        made["headers"] = {"Retry-After": retry}
    return made


def components() -> dict[str, Any]:
    """JSON schemas of all that is answered, by name."""
    found: dict[str, Any] = {"Error": ERROR}
    _dataclass(results.Analysis, found)
    _dataclass(results.DetectorFacts, found)
    found["Analysis"]["properties"]["schema"] = {"type": "integer", "description": "Version of this form."}
    found["Analysis"]["required"].insert(0, "schema")
    verdict = {"type": "string", "description": "That of the ensemble, or of the only detector."}
    found["FaceAnalysis"]["properties"]["verdict"] = verdict
    found["FaceAnalysis"]["required"].append("verdict")
    found["BatchFile"] = {
        "type": "object",
        "description": "A file of a batch: its analysis, or why it has none.",
        "properties": {
            "name": {"type": "string", "description": "To show; cleaned, never a path."},
            "analysis": {"anyOf": [_ref("Analysis"), {"type": "null"}], "description": "Null if refused."},
            "problem": {"anyOf": [_ref("Error"), {"type": "null"}], "description": "Why it was refused."},
        },
        "required": ["name", "analysis", "problem"],
        "additionalProperties": False,
    }
    counts = {"type": "object", "additionalProperties": {"type": "integer"}}
    found["Batch"] = {
        "type": "object",
        "description": "What is said of many files.",
        "properties": {
            "schema": {"type": "integer", "description": "Version of this form."},
            "files": {"type": "array", "items": _ref("BatchFile"), "description": "In the order sent."},
            "summary": {**counts, "description": "Files in all, those refused, and those of each verdict."},
        },
        "required": ["schema", "files", "summary"],
        "additionalProperties": False,
    }
    return found


def example(name: str) -> Any:
    """An answer that was really given, to a drawn face."""
    return json.loads((TEMPLATES / f"example-{name}.json").read_text())


def docs_page(schema: dict[str, Any]) -> tuple[str, str]:
    """The API as HTML, and the content security policy that it needs: one style, no script, no requests."""
    from crossfake.pages import environment

    made = environment(TEMPLATES)
    made.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    made.filters["kind"] = _kind
    page = made.get_template("api.html").render(schema=schema)
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return page, f"{STRICT}; style-src 'sha256-{digest}'"


def _dataclass(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in found:
        made: dict[str, Any] = {"type": "object"}
        found[name] = made
        hints = typing.get_type_hints(kind)
        texts = _attributes(kind)
        made["description"] = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
        made["properties"] = {
            each.name: {**_schema(hints[each.name], found), "description": texts.get(each.name, "")}
            for each in dataclasses.fields(kind)
            if each.name != "heat"
        }
        # Pictures are left out unless asked for
        made["required"] = [
            each.name for each in dataclasses.fields(kind) if "ndarray" not in str(hints[each.name])
        ]
        made["additionalProperties"] = False
    return _ref(name)


def _schema(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(part, found) for part in parts]}
    if hint is type(None):
        return {"type": "null"}
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, found)
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(parts[1], found)}
    if origin is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return {"type": "array", "items": _schema(parts[0], found)}
        items = [_schema(part, found) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is np.ndarray:
        return dict(_PICTURE)
    raise TypeError(f"no schema for {hint}")


def _attributes(kind: Any) -> dict[str, str]:
    """What the section ``Attributes:`` of a docstring says of each."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    pairs = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: _plain(text) for name, text in pairs}


def _plain(text: str) -> str:
    """A sentence of a docstring for readers of JSON."""
    text = re.sub(r":\w+:`[\w.]*?(\w+)`", r"\1", re.sub(r"\s+", " ", text)).replace("``", "")
    text = re.sub(r"\bNone\b", "null", text)
    return text[:1].upper() + text[1:]


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
_OPERATIONS: dict[str, dict[str, Any]] = {
    "analyze": {
        "summary": "Analyse one picture or video",
        "description": "Every face is judged by every detector. Without explanation and stability the answer is quick.",
        "form": {
            "file": {**_FILE, "description": "JPEG, PNG, WebP, HEIC, GIF, TIFF or a video, told by content."}
        },
        "answer": "The analysis.",
        "schema": _ref("Analysis"),
        "errors": sorted((*_GUARDED, *_UPLOADS)),
    },
    "batch": {
        "summary": "Analyse many files, or one zip of them",
        "description": "One after the other. A file that is not taken is listed with its problem and stops nothing.",
        "form": {
            "files": {
                "type": "array",
                "items": _FILE,
                "minItems": 1,
                "description": "Repeated, once per file.",
            }
        },
        "answer": "The analyses, in the order sent.",
        "schema": _ref("Batch"),
        "errors": sorted((*_GUARDED, *_UPLOADS)),
    },
    "detectors": {
        "summary": "What is known of the detectors",
        "description": "What each was trained and tested on, and how often it calls a real picture fake.",
        "answer": "The detectors.",
        "schema": {"type": "array", "items": _ref("DetectorFacts")},
        "errors": [401, 421, 422, 429, 500, 503],
    },
    "healthz": {
        "summary": "Is it up?",
        "description": "Needs no token. Until all is loaded: 503, with the status 'loading'.",
        "answer": "It is.",
        "schema": {
            "type": "object",
            "properties": {
                "status": {"const": "ok"},
                "version": {"type": "string"},
                "detectors": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["status", "version", "detectors"],
            "additionalProperties": False,
        },
        "errors": [421],
    },
    "metrics": {
        "summary": "Counts and times for Prometheus",
        "description": "No names, addresses or pictures.",
        "answer": "In Prometheus' text format.",
        "type": "text/plain",
        "schema": {"type": "string"},
        "errors": [401, 421],
    },
}


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words: ``number or null``."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "prefixItems" in schema:
        return f"array of {len(schema['prefixItems'])}: {', '.join(_kind(each) for each in schema['prefixItems'])}"
    if schema.get("type") == "array":
        return f"array of {_kind(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return (
        "PNG as data URI" if schema.get("pattern") == _PICTURE["pattern"] else str(schema.get("type", "any"))
    )
