import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from crossfake.detect.metadata.display import claim_words, lines, sections
from crossfake.detect.metadata.reading import read_metadata
from crossfake.detect.metadata.results import Metadata

from .files import PARAMETERS, camera_exif, noise, picture, png, saved, with_chunk, with_thumbnail, xmp


def test_a_cameras_file() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = saved(
        picture(),
        "JPEG",
        exif=camera_exif(),
        icc_profile=profile,
        quality=90,
        comment=b"caf\xe9",
        xmp=xmp(xmp__CreatorTool="Lightroom", xmp__ModifyDate="2024-05-07"),
    )
    found = read_metadata(content)
    assert (
        found.format == "JPEG" and found.camera == "Canon EOS 5D" and found.claims == () and found.notes == ()
    )
    assert found.software == ("Photo Editor 2", "Lightroom")
    assert [(each.name, each.value) for each in found.dates] == [
        ("taken", "2024:05:01 09:00:00 +02:00"),
        ("file changed", "2024:05:06 10:00:00"),
        ("changed (XMP)", "2024-05-07"),
    ]
    assert found.place == "-33.86000, 151.20000"
    assert found.jpeg is not None and found.jpeg.quality == 90 and found.jpeg.standard
    assert found.jpeg.sampling == "4:2:0" and [len(each) for each in found.jpeg.tables] == [64, 64]
    assert "sRGB" in found.icc
    assert ("comment", "café") in [(each.name, each.value) for each in found.texts]
    assert found.credentials.state == "absent"
    assert json.loads(json.dumps(found.as_dict()))["jpeg"]["quality"] == 90
    shown = "\n".join(lines(found))
    assert "Canon EOS 5D" in shown and "90 of 100" in shown and "EXIF: " in shown and "Likeness" not in shown
    assert "DateTimeOriginal" in "\n".join(lines(found, everything=True))


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF"])
def test_exif_in_other_formats(fmt: str) -> None:
    found = read_metadata(saved(picture(), fmt, exif=camera_exif()))
    assert found.format == fmt and found.camera == "Canon EOS 5D" and found.jpeg is None


def test_another_programs_tables() -> None:
    tables = [[2] * 64, [3] * 64]
    found = read_metadata(saved(picture(), "JPEG", qtables=tables, subsampling=0, progressive=True)).jpeg
    assert found is not None and not found.standard and found.sampling == "4:4:4" and found.progressive


def test_thumbnail_of_the_same_and_of_another_picture() -> None:
    whole = picture(1, 256)
    found = read_metadata(with_thumbnail(whole, whole.resize((160, 160)))).thumbnail
    assert found is not None and found.matches and found.likeness is not None and found.likeness > 0.95
    assert found.picture is not None and found.picture.shape == (160, 160, 3)
    content = with_thumbnail(whole, picture(7, 160))
    found = read_metadata(content).thumbnail
    assert found is not None and not found.matches and "does not show this picture" in found.words
    assert "picture" not in read_metadata(content).as_dict()["thumbnail"]
    assert read_metadata(content, thumbnail=False).thumbnail is None
    cropped = whole.crop((0, 0, 256, 120))  # the picture was cropped after the thumbnail was made
    found = read_metadata(with_thumbnail(cropped, whole.resize((160, 160)))).thumbnail
    assert found is not None and not found.matches


def test_thumbnail_with_black_bars_and_of_one_colour() -> None:
    whole = Image.fromarray(np.asarray(picture(2, 300))[50:250])  # 3:2
    framed = Image.new("RGB", (160, 120))
    framed.paste(whole.resize((160, 107)), (0, 7))
    found = read_metadata(with_thumbnail(whole, framed)).thumbnail
    assert found is not None and found.matches
    found = read_metadata(with_thumbnail(whole, Image.new("RGB", (160, 107), "grey"))).thumbnail
    assert (
        found is not None
        and found.likeness is None
        and not found.matches
        and "cannot be compared" in found.words
    )
    grey = Image.new("RGB", (90, 60), "grey")
    found = read_metadata(with_thumbnail(grey, grey)).thumbnail
    assert found is not None and found.matches


def test_a_broken_or_huge_thumbnail_is_a_note() -> None:
    content = with_thumbnail(picture(0, 128), noise(32, 32))
    at = content.index(b"\xff\xd8", 10)
    (note,) = read_metadata(content[:at] + b"\x00\x00" + content[at + 2 :]).notes
    assert note.startswith("The thumbnail in EXIF cannot be read")
    (note,) = read_metadata(with_thumbnail(picture(0, 64), Image.new("RGB", (1100, 10)))).notes
    assert "1100×10" in note


def test_bombs_of_text_are_cut_in_no_time() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    for body in (b"parameters\0\0" + bomb, b"XML:com.adobe.xmp\0\0" + bomb):
        found = read_metadata(with_chunk(b"zTXt", body))
        assert "longer than 4,194,304 bytes" in found.notes[0]
    found = read_metadata(with_chunk(b"iTXt", b"parameters\0\1\0\0\0" + bomb))
    assert "longer than" in found.notes[0] and not found.claims
    assert "cannot be unpacked" in read_metadata(with_chunk(b"zTXt", b"a\0\0nonsense")).notes[0]


def test_entities_in_xmp_are_refused() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;">]>' + xmp(xmp__CreatorTool="&y;")
    found = read_metadata(saved(picture(), "JPEG", xmp=bomb))
    assert found.xmp == () and found.notes == ("XMP cannot be read (no proper XML, EntitiesForbidden).",)
    deep = b"<a>" * 20_000 + b"</a>" * 20_000
    assert read_metadata(png(**{"XML:com.adobe.xmp": deep.decode()})).xmp == ()
    many = xmp(**{f"xmp__p{n}": "v" for n in range(1000)})
    assert len(read_metadata(saved(picture(), "JPEG", xmp=many)).xmp) == 150


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "]
)
def test_what_is_no_picture_is_a_note(content: bytes, tmp_path: Path) -> None:
    found = read_metadata(content)
    assert found.format == "unknown" and found.notes and not found.claims
    assert "Not read" in [each.title for each in sections(found)]
    (tmp_path / "x").write_bytes(content)
    assert read_metadata(tmp_path / "x") == found
    assert "cannot be read" in read_metadata(tmp_path / "none").notes[0]


def test_mutated_files_never_raise() -> None:
    """Bits turned anywhere in headers: notes at most."""
    rng = random.Random(0)
    files = [
        with_thumbnail(picture(0, 64), picture(0, 32)),
        saved(picture(), "JPEG", exif=camera_exif(), xmp=xmp(xmp__CreatorTool="a")),
        png(parameters=PARAMETERS),
        saved(picture(), "WEBP", exif=camera_exif()),
        saved(picture(), "TIFF", exif=camera_exif()),
    ]
    for content in files:
        for _ in range(60):
            broken = bytearray(content)
            for _ in range(rng.randrange(1, 9)):
                broken[rng.randrange(min(len(broken), 900))] = rng.randrange(256)
            assert isinstance(read_metadata(bytes(broken)), Metadata)
        read_metadata(content[: len(content) // 3])


def test_videos_say_who_wrote_them(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        container.metadata["comment"] = json.dumps(
            {"prompt": json.dumps({"1": {"class_type": "X", "inputs": {}}})}
        )
        container.metadata["com.apple.quicktime.make"] = "Apple"
        container.metadata["com.apple.quicktime.model"] = "iPhone 12"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture()), format="rgb24")))
        container.mux(stream.encode(None))
    found = read_metadata(path)
    assert found.camera == "Apple iPhone 12" and found.software and "mp4" in found.format
    assert found.claims[0].tool == "ComfyUI" and read_metadata(path.read_bytes()) == found
    (tmp_path / "broken.mp4").write_bytes(path.read_bytes()[:40])
    assert read_metadata(tmp_path / "broken.mp4").notes


def test_the_claim_goes_first_and_says_whose_it_is() -> None:
    assert claim_words(None) == "" == claim_words(read_metadata(png()))
    found = read_metadata(png(parameters=PARAMETERS))
    assert claim_words(found) == (
        "This file says that it was made with Stable Diffusion web UI, model v1-5-pruned. "
        "Anyone can write such a mark, and saving the picture anew removes it."
    )
    assert sections(found)[0].title == found.claims[0].sentence
