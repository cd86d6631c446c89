import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.decode import register_heif
from crossfake.datasets.filetypes import is_archive
from crossfake.datasets.toyfaces import toyface
from crossfake.serve.intake import headers
from crossfake.serve.intake.accepting import accept
from crossfake.serve.intake.headers import Refused, kind_of, read_picture, read_video


def saved(kind: str, width: int = 40, height: int = 30, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(toyface(0, 40)).resize((width, height)).save(out, kind, **options)
    return out.getvalue()


WEBPS = (
    {},
    {"lossless": True},
    {"exif": b"Exif\0\0"},
    {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]},
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "HEIF"])
def test_pictures_are_known_by_content_and_measured(kind: str, tmp_path: Path) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
        register_heif()
    content = saved(kind)
    (tmp_path / "a.txt").write_bytes(content)
    assert kind_of(content[:512]) == "image"
    claims = read_picture(tmp_path / "a.txt", content[:512])
    assert (claims.width, claims.height, claims.animated) == (40, 30, False)
    with pytest.raises(Refused) as caught:
        (tmp_path / "b").write_bytes(content[:16])
        read_picture(tmp_path / "b", content[:16])
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("options", WEBPS)
def test_webp_is_measured_as_pil_does(options: dict[str, object], tmp_path: Path) -> None:
    content = saved("WEBP", **options)
    claims = read_picture(tmp_path / "never opened", content[:512])
    with Image.open(io.BytesIO(content)) as image:
        assert (claims.width, claims.height) == image.size and claims.animated == image.is_animated


@pytest.mark.parametrize("major", [b"avif", b"mif1", b"heic"])
def test_avif_is_refused_under_any_brand(major: bytes, tmp_path: Path) -> None:
    content = bytearray(saved("AVIF"))
    content[8:12] = major
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(Refused) as caught:
        accept(tmp_path / "a")
    assert caught.value.code == "avif-not-supported"
    content[:4] = (4096).to_bytes(4)  # brands beyond what is looked at
    with pytest.raises(Refused, match="damaged"):
        read_picture(tmp_path / "a", bytes(content[:512]))


def test_an_enormous_picture_is_not_decoded(tmp_path: Path) -> None:
    content = bytearray(saved("PNG"))
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", __import__("zlib").crc32(bytes(content[12:29])))
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(Refused) as caught:
        read_picture(tmp_path / "a", bytes(content[:512]))
    assert caught.value.code == "too-many-pixels" and caught.value.status == 413


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", None),
        (b"plain text, whatever.jpg says", None),
        (b"%!PS-Adobe-3.0 EPSF", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", None),
        (b"#EXTM3U\nfile:///etc/passwd", None),
        (b"ffconcat version 1.0\nfile /etc/passwd", None),
        (b"\0\0\0\x20ftypisom" + bytes(500), "video"),
        (b"\0\0\0\x20ftypqt  " + bytes(500), "video"),
        (b"\0\0\0\x08wide" + bytes(500), "video"),
        (b"\x1aE\xdf\xa3" + bytes(500), "video"),
        (b"RIFF\0\0\0\0AVI " + bytes(500), "video"),
        (b"RIFF\0\0\0\0WAVE" + bytes(500), None),
        ((b"G" + bytes(187)) * 3, "video"),
        (b"G" + bytes(511), None),
        (b"PK\3\4" + bytes(500), "archive"),
        (b"\x1f\x8b\x08" + bytes(500), None),
    ],
)
def test_kinds(head: bytes, kind: str | None) -> None:
    assert kind_of(head[:512]) == kind


def test_other_archives_are_archives_too() -> None:
    assert all(map(is_archive, [b"7z\xbc\xaf'\x1c", b"Rar!\x1a\x07\x01", b"\x1f\x8b\x08", b"PK\3\4"]))
    assert is_archive(bytes(257) + b"ustar") and not is_archive(saved("PNG"))


def test_heic_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "register_heif", lambda: False)
    with pytest.raises(Refused) as caught:
        read_picture(tmp_path / "a", b"\0\0\0\x18ftypheic")
    assert caught.value.code == "heic-not-supported"


def test_videos_are_measured_by_their_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    from crossfake.datasets.sources.fixtures import face_video

    face_video(tmp_path / "a.mp4", 0, frames=12)
    claims = read_video(tmp_path / "a.mp4", 600)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert claims.seconds == pytest.approx(container.duration / 1e6)
    assert (claims.width, claims.height) == (96, 96)
    with pytest.raises(Refused) as caught:
        read_video(tmp_path / "a.mp4", 0.01)  # 12 frames cannot be so short
    assert caught.value.code == "too-long"
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:200])
    with pytest.raises(Refused) as caught:
        read_video(tmp_path / "b.mp4", 600)
    assert caught.value.code == "damaged"
    with av.open(str(tmp_path / "c.webm"), "w", format="matroska") as container:  # sound alone
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(Refused) as caught:
        read_video(tmp_path / "c.webm", 600)
    assert caught.value.code == "not-an-image"


def test_a_tile_larger_than_the_picture_counts(tmp_path: Path) -> None:
    entries = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (277, 1), (322, 32768), (323, 32768)]
    entries += [(324, 8), (325, 100)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(104))
    claims = read_picture(path, path.read_bytes()[:512])
    assert (claims.width, claims.height, claims.tile) == (64, 64, 1 << 30)
    with pytest.raises(Refused) as caught:
        accept(path)
    assert caught.value.code == "too-many-pixels"
