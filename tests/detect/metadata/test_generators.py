import json

import pytest

from crossfake.detect.metadata.generators import read_claims
from crossfake.detect.metadata.reading import read_metadata
from crossfake.detect.metadata.results import PROMPT, Claim

from .files import GRAPH, PARAMETERS, SOURCE, picture, png, saved, xmp


def _only(content: bytes) -> Claim:
    (claim,) = read_metadata(content).claims
    return claim


def test_web_ui_in_png_and_in_exif() -> None:
    claim = _only(png(parameters=PARAMETERS))
    assert claim.tool == "Stable Diffusion web UI" and claim.model == "v1-5-pruned"
    assert claim.prompt == "a <b>cat</b>, sitting" and claim.negative == "dog, worst quality"
    settings = {each.name: each.value for each in claim.settings}
    assert settings["Steps"] == "20" and settings["Seed"] == "1" and settings["Model hash"] == "abc"
    assert claim.where == "text 'parameters'" and not claim.signed and not claim.part
    exif = picture().getexif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    for fmt in ("JPEG", "WEBP"):
        again = _only(saved(picture(), fmt, exif=exif))
        assert again.prompt == claim.prompt and again.where == "EXIF 'UserComment'"


def test_comfy_graph_and_workflow() -> None:
    claim = _only(png(prompt=json.dumps(GRAPH), workflow="{}"))
    assert (claim.tool, claim.model, claim.prompt, claim.negative) == (
        "ComfyUI",
        "sdxl.safetensors",
        "a dog",
        "bad",
    )
    drawn = {
        "nodes": [{"type": "X", "widgets_values": ["m.safetensors", 1]}],
        "links": [],
        "pad": "x" * 100_000,
    }
    claim = _only(png(workflow=json.dumps(drawn)))  # longer than PIL would take
    assert (claim.tool, claim.model) == ("ComfyUI", "m.safetensors")
    exif = picture().getexif()
    exif[0x010F] = f"Prompt:{json.dumps(GRAPH)}"
    assert _only(saved(picture(), "WEBP", exif=exif)).prompt == "a dog"


@pytest.mark.parametrize(
    ("texts", "tool", "model", "prompt"),
    [
        (
            {
                "Software": "NovelAI",
                "Description": "1girl",
                "Source": "NAI 3",
                "Comment": '{"uc":"bad","steps":28}',
            },
            "NovelAI",
            "NAI 3",
            "1girl",
        ),
        (
            {
                "invokeai_metadata": '{"positive_prompt":"a","negative_prompt":"b","model":{"name":"flux"},"seed":1}'
            },
            "InvokeAI",
            "flux",
            "a",
        ),
        ({"sd-metadata": '{"image":{"prompt":"old"},"model_weights":"sd-1.4"}'}, "InvokeAI", "sd-1.4", "old"),
        ({"Dream": '"a castle" -s 50'}, "InvokeAI", "", '"a castle" -s 50'),
        (
            {"Description": "a boat --ar 3:2 --v 6.1 Job ID: 0f3c2b1a-0000-4000-8000-00000000abcd"},
            "Midjourney",
            "",
            "a boat --ar 3:2 --v 6.1",
        ),
        ({"parameters": '{"sui_image_params":{"prompt":"p","model":"m","seed":3}}'}, "SwarmUI", "m", "p"),
        ({"parameters": '{"prompt":"p","negative_prompt":"n","base_model":"m"}'}, "Fooocus", "m", "p"),
        ({"Software": "Adobe Firefly"}, "Adobe Firefly", "", ""),
    ],
)
def test_what_other_programs_write(texts: dict[str, str], tool: str, model: str, prompt: str) -> None:
    claim = _only(png(**texts))
    assert (claim.tool, claim.model, claim.prompt) == (tool, model, prompt)


def test_source_type_and_credit_in_xmp() -> None:
    packet = xmp(
        Iptc4xmpExt__DigitalSourceType=SOURCE + "trainedAlgorithmicMedia", xmp__CreatorTool="Painter 3"
    )
    found = read_metadata(saved(picture(), "JPEG", xmp=packet))
    assert found.source_type == "trainedAlgorithmicMedia" and found.source_words == "made by a trained model"
    assert found.claims[0].tool == "Painter 3" and not found.claims[0].part
    packet = xmp(Iptc4xmpExt__DigitalSourceType=SOURCE + "compositeWithTrainedAlgorithmicMedia")
    assert _only(saved(picture(), "JPEG", xmp=packet)).sentence.startswith(
        "This file says that a part of it was made"
    )
    packet = xmp(photoshop__Credit="Made with Google AI")
    assert (
        _only(saved(picture(), "WEBP", xmp=packet)).sentence
        == "This file says that it was made with a generator."
    )
    packet = xmp(TC260__AIGC='{"Label":"1","ContentProducer":"Some Service"}')
    assert _only(saved(picture(), "JPEG", xmp=packet)).tool == "Some Service"


@pytest.mark.parametrize(
    "texts",
    [
        {"Software": "Adobe Photoshop 25.0"},
        {"Description": "the steps: 20 of them, a sampler platter"},
        {"parameters": "f(x) = 2x"},
        {"prompt": "[" * 100_000, "workflow": '{"nodes": 3, "links": []}'},
        {"invokeai": "x", "Comment": "{broken"},
        {"Author": "Sora Imagen"},
        {"AIGC": '{"Label":"2"}'},
    ],
)
def test_what_is_no_mark(texts: dict[str, str]) -> None:
    assert read_metadata(png(**texts)).claims == ()


def test_camera_source_types_are_no_claim() -> None:
    assert read_claims({}, {}, {"Iptc4xmpExt:DigitalSourceType": SOURCE + "digitalCapture"}) == ()


def test_prompts_are_cut_and_tame() -> None:
    long = "ä\x1b[31m\u202e" + "word " * 10_000
    claim = _only(png(parameters=f"{long}\nSteps: 20, Sampler: Euler, Model: {'m' * 999}"))
    assert (
        len(claim.prompt) == PROMPT + 1 and claim.prompt.startswith("ä[31mword") and len(claim.model) == 121
    )
    assert "\x1b" not in claim.prompt and "\u202e" not in claim.prompt


def test_a_graph_that_leads_in_a_circle_ends() -> None:
    circle = {
        str(n): {"class_type": "X", "inputs": {"positive": [str(1 - n), 0], "negative": [str(1 - n), 0]}}
        for n in range(2)
    }
    assert _only(png(prompt=json.dumps(circle))).prompt == ""
