"""The marks of generators in text chunks, EXIF and XMP: who made it, with which weights, and what it was asked for.

What the programs write is not standardised; each reader says whose it is. A mark proves nothing: a text editor writes
one as well, and saving the picture anew removes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crossfake.detect.metadata.results import PROMPT, Claim, Entry, cut
from crossfake.detect.metadata.xmp import GENERATED, PARTLY_GENERATED, SOURCE_TYPE, source_type

Texts = Mapping[str, str]
_MOST_JSON = 4 << 20
_HOPS = 12  # from a sampler to the words that it was given

_WEB_UI = "Stable Diffusion web UI"
_SETTINGS = re.compile(
    r"(?:^|, |\n)(Steps|Sampler|Schedule type|CFG scale|Seed|Size|Model hash|Model|Version): ([^,\n]*)"
)
_JOB = re.compile(r"Job ID: [0-9a-f]{8}-[0-9a-f-]{27}")
# Names that stand for a generator wherever a program, a credit or a camera is named
_NAMES = re.compile(
    r"\b(Midjourney|Stable Diffusion|DALL[-·. ]?E\b[ 0-9]*|Adobe Firefly|Firefly Image|NovelAI|InvokeAI|ComfyUI|"
    r"Fooocus|Draw Things|ChatGPT|Bing Image Creator|Microsoft Designer|DreamStudio|Stability AI|DiffusionBee|"
    r"Leonardo\.?AI|Ideogram|Black Forest Labs|FLUX\.[12]|StyleGAN[0-9]?|This Person Does Not Exist|Google Imagen|"
    r"Grok Imagine|(?:Made|Generated|Created) with (?:Google )?AI|AI[- ]Generated)\b",
    re.IGNORECASE,
)
_EDITED = re.compile(r"\bEdited with (?:Google )?AI\b", re.IGNORECASE)
_NAMING = (
    "Software", "Make", "Model", "Artist", "Credit", "HostComputer", "ProcessingSoftware", "encoder",
    "xmp:CreatorTool", "photoshop:Credit", "dc:creator", "tiff:Software", "tiff:Make", "tiff:Model",
)  # a table  # fmt: skip


def read_claims(texts: Texts, exif: Texts, xmp: Texts) -> tuple[Claim, ...]:
    """The marks in a file, the most telling first, one for each tool.

    Args:
        texts: text chunks and comments by name.
        exif: tags by name.
        xmp: properties by name, as :func:`~crossfake.detect.metadata.xmp.read_xmp` has them.
    """
    found: dict[str, Claim] = {}
    # parameters of web UIs lie in EXIF where the format has no text chunks
    pools = (("text", texts), ("EXIF", exif), ("XMP", xmp))
    for place, pool in pools:
        for read in READERS:
            claim = read(pool, place)
            if claim is not None:
                found.setdefault(claim.tool.lower(), claim)
    for claim in _named(pools):
        if not any(claim.tool.lower() in tool for tool in found):
            found[claim.tool.lower()] = claim
    kind = source_type(xmp.get(SOURCE_TYPE, ""))
    if kind in GENERATED | PARTLY_GENERATED and not found:
        tool = cut(xmp.get("xmp:CreatorTool", ""), 100)
        found[tool] = Claim(tool, f"XMP '{SOURCE_TYPE}' {kind}", part=kind in PARTLY_GENERATED)
    return tuple(found.values())


def _web_ui(texts: Texts, place: str) -> Claim | None:
    """AUTOMATIC1111 and what descends from it, Civitai's downloads too; SwarmUI and Fooocus write JSON there."""
    for key in ("parameters", "UserComment", "Comment", "comment", "generation_data"):
        text = texts.get(key, "")
        data = _json(text) if text.lstrip().startswith("{") else None
        if isinstance(data, dict) and (made := _web_ui_json(data, f"{place} '{key}'")):
            return made
        start = text.rfind("Steps: ")
        if start < 0 or "Sampler: " not in text[start:]:
            continue
        settings = {name: cut(value) for name, value in _SETTINGS.findall(text[start : start + 10_000])}
        prompt, _, negative = text[:start].partition("Negative prompt: ")
        version = settings.get("Version", "")
        tool = version if version in ("ComfyUI", "Fooocus") else _WEB_UI
        return _claim(tool, f"{place} '{key}'", settings.pop("Model", ""), prompt, negative, settings)
    return None


def _web_ui_json(data: dict[str, Any], where: str) -> Claim | None:
    if isinstance(inner := data.get("sui_image_params"), dict):
        return _claim(
            "SwarmUI", where, inner.get("model"), inner.get("prompt"), inner.get("negativeprompt"), inner
        )
    if "base_model" in data and "prompt" in data:
        return _claim("Fooocus", where, data["base_model"], data["prompt"], data.get("negative_prompt"), data)
    return None


def _comfy(texts: Texts, place: str) -> Claim | None:
    """ComfyUI: the graph that ran, and the editor's own form of it; in WebP inside ``Make`` and ``Model``."""
    for key in ("prompt", "workflow", "Make", "Model", "ImageDescription"):
        text = texts.get(key, "")
        text = text.partition(":")[2] if re.match(r"(?i)(prompt|workflow):\s*\{", text) else text
        graph = _json(text) if text.lstrip().startswith("{") else None
        if not isinstance(graph, dict):
            continue
        nodes = {k: v for k, v in graph.items() if isinstance(v, dict) and "class_type" in v}
        if nodes:
            return _of_graph(nodes, f"{place} '{key}'")
        drawn = graph.get("nodes")
        if isinstance(drawn, list) and "links" in graph:
            values = [
                value
                for node in drawn
                if isinstance(node, dict) and isinstance(node.get("widgets_values"), list)
                for value in node["widgets_values"]
            ]
            model = next(
                (v for v in values if isinstance(v, str) and re.search(r"\.(safetensors|ckpt|gguf)$", v)), ""
            )
            return _claim("ComfyUI", f"{place} '{key}'", model)
    return None


def _of_graph(nodes: dict[str, Any], where: str) -> Claim:
    inputs = {key: node.get("inputs") for key, node in nodes.items()}
    inputs = {key: value for key, value in inputs.items() if isinstance(value, dict)}
    model, prompt, negative = "", "", ""
    settings: dict[str, Any] = {}
    for each in inputs.values():
        model = model or next(
            (each[k] for k in ("ckpt_name", "unet_name") if isinstance(each.get(k), str)), ""
        )
        if "positive" in each and "negative" in each and not prompt:
            prompt, negative = (_words(inputs, each[side], _HOPS) for side in ("positive", "negative"))
            settings = {k: v for k, v in each.items() if isinstance(v, str | int | float)}
    texts = (v for each in inputs.values() for k, v in each.items() if k == "text" and isinstance(v, str))
    return _claim("ComfyUI", where, model, prompt or next(texts, ""), negative, settings)


def _words(inputs: dict[str, Any], link: Any, hops: int) -> str:
    """The text at the end of a chain of nodes."""
    node = inputs.get(str(link[0])) if isinstance(link, list) and link else None
    if not hops or node is None:
        return ""
    for key in ("text", "text_g", "t5xxl", "prompt"):
        if isinstance(node.get(key), str):
            return str(node[key])
    chains = (value for value in node.values() if isinstance(value, list))
    return next((words for link in [*chains][:1] if (words := _words(inputs, link, hops - 1))), "")


def _novel_ai(texts: Texts, place: str) -> Claim | None:
    if texts.get("Software") != "NovelAI":
        return None
    data = _json(texts.get("Comment", ""))
    data = data if isinstance(data, dict) else {}
    return _claim(
        "NovelAI", f"{place} 'Software'", texts.get("Source"), texts.get("Description"), data.get("uc"), data
    )


def _invoke(texts: Texts, place: str) -> Claim | None:
    for key in ("invokeai_metadata", "sd-metadata", "Dream"):
        if key not in texts:
            continue
        data = _json(texts[key])
        if not isinstance(data, dict):
            return _claim("InvokeAI", f"{place} '{key}'", "", texts[key])
        image = data.get("image")
        inner = image if isinstance(image, dict) else data
        model = inner.get("model", data.get("model_weights", ""))
        if isinstance(model, dict):
            model = model.get("name", model.get("model_name", ""))
        prompt = inner.get("positive_prompt", inner.get("prompt", ""))
        return _claim("InvokeAI", f"{place} '{key}'", model, prompt, inner.get("negative_prompt"), inner)
    return None


def _midjourney(texts: Texts, place: str) -> Claim | None:
    for key in ("Description", "ImageDescription", "dc:description"):
        if found := _JOB.search(texts.get(key, "")):
            prompt = texts[key][: found.start()].rstrip()
            return _claim("Midjourney", f"{place} '{key}'", "", prompt, "", {"Job ID": found[0][8:]})
    return None


def _aigc(texts: Texts, place: str) -> Claim | None:
    """The label that China's standard GB 45438-2025 asks services for; 1 is generated, 2 and 3 are perhaps."""
    for key, text in texts.items():
        if key.rpartition(":")[2] == "AIGC" and isinstance(data := _json(text), dict) and "Label" in data:
            if str(data["Label"]) != "1":
                return None
            return Claim(cut(data.get("ContentProducer", ""), 100), f"{place} '{cut(key, 60)}' (GB 45438)")
    return None


READERS: tuple[Callable[[Texts, str], Claim | None], ...] = (
    _web_ui,
    _comfy,
    _novel_ai,
    _invoke,
    _midjourney,
    _aigc,
)


def _named(pools: Iterable[tuple[str, Texts]]) -> Iterator[Claim]:
    for place, pool in pools:
        for key in _NAMING:
            text = pool.get(key, "")[:1000]
            if found := _NAMES.search(text):
                known = found[0].lower()
                tool = "" if " with " in known or known.startswith("ai") else found[0].strip()
                yield Claim(tool, f"{place} '{key}': {cut(text, 80)}")
            elif _EDITED.search(text):
                yield Claim("", f"{place} '{key}': {cut(text, 80)}", part=True)


def _claim(
    tool: str,
    where: str,
    model: Any = "",
    prompt: Any = "",
    negative: Any = "",
    settings: Mapping[str, Any] | None = None,
) -> Claim:
    plain = {
        str(key): value
        for key, value in (settings or {}).items()
        if isinstance(value, str | int | float)
        and "prompt" not in str(key).lower()
        and key not in ("uc", "model")
    }
    entries = tuple(Entry(cut(key, 60), cut(value)) for key, value in [*plain.items()][:20])
    return Claim(
        cut(tool, 100),
        where,
        model=cut(model or "", 120),
        prompt=cut(prompt or "", PROMPT),
        negative=cut(negative or "", PROMPT),
        settings=entries,
    )


def _json(text: str) -> Any:
    """A document; None for what is none, and for what only wants to keep a parser busy."""
    if len(text) > _MOST_JSON:
        return None
    try:
        return json.loads(text.replace("NaN", "null"))  # ComfyUI writes it
    except (ValueError, RecursionError):
        return None
