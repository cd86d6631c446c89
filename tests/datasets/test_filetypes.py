import io
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from crossfake.datasets.filetypes import HEAD, head_of, is_archive, kind_of, picture_format
from crossfake.datasets.sources.fixtures import face_video
from crossfake.datasets.sources.folder import is_video
from crossfake.datasets.toyfaces import toyface


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"])
def test_pictures_as_pil_writes_them(kind: str) -> None:
    out = io.BytesIO()
    try:
        Image.fromarray(toyface(0, 32)).save(out, kind)
    except (OSError, KeyError):
        pytest.skip(f"this build of PIL writes no {kind}")
    head = out.getvalue()[:HEAD]
    assert kind_of(head) == "image" and picture_format(head) == ("HEIF" if kind == "AVIF" else kind)


@pytest.mark.parametrize("head", [b"\xff\x0a" + bytes(9), b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_jpeg_xl_bare_and_boxed(head: bytes) -> None:
    assert picture_format(head) == "JXL"


@pytest.mark.parametrize("head", [b"BM is how a letter may begin", b"P6 is a car", b"let x: number = 1", b""])
def test_texts_are_no_pictures(head: bytes) -> None:
    assert kind_of(head) is None and not is_archive(head)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts", "m2ts", "mts", "vob", "flv"])
def test_videos_as_ffmpeg_writes_them(ending: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    muxer = {"m2ts": ("mpegts", {"mpegts_m2ts_mode": "1"}), "mts": ("mpegts", {}), "vob": ("vob", {})}
    name, options = muxer.get(ending, (None, {}))
    with av.open(str(tmp_path / f"b.{ending}"), "w", format=name, options=options) as target:
        stream = target.add_stream({"vob": "mpeg2video", "flv": "flv"}.get(ending, "mpeg4"), rate=25)
        stream.width = stream.height = 96
        stream.pix_fmt = "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(toyface(number, 96), format="rgb24")
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    assert kind_of(head_of(tmp_path / f"b.{ending}")) == "video"


def test_content_counts_and_the_ending_where_it_says_nothing(tmp_path: Path) -> None:
    pytest.importorskip("av")
    face_video(tmp_path / "a.mp4", 0)
    (tmp_path / "a.mp4").rename(tmp_path / "film.jpg")
    Image.fromarray(toyface(0, 32)).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.mp4")
    (tmp_path / "cut.mp4").write_bytes(b"no video")
    os.mkfifo(tmp_path / "pipe.mov")
    names = ("film.jpg", "photo.mp4", "cut.mp4", "pipe.mov", "gone.png")
    assert [is_video(tmp_path / name) for name in names] == [True, False, True, True, False]
    assert not is_video(b"RIFF") and head_of(tmp_path / "pipe.mov") == b""


def test_archives_of_any_kind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("x", b"y")
    assert kind_of(head_of(tmp_path / "a")) == "archive"
    assert is_archive(b"Rar!\x1a\x07\x01") and kind_of(b"Rar!\x1a\x07\x01") is None
