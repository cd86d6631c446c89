import importlib.util
import io
import os
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.serve.intake.accepting import (
    Upload,
    accept,
    display_name,
    session_folder,
    unpack,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import Limits


def picture(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(toyface(0, 32)).save(out, kind)
    return out.getvalue()


def zipped(folder: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "a.zip"


def refusal(path: Path, folder: Path, limits: Limits = Limits()) -> str:  # noqa: B008
    with pytest.raises(Refused) as caught:
        unpack(accept(path, limits), folder, limits)
    assert str(folder) not in str(caught.value) and caught.value.hint
    return caught.value.code


def _code(upload: Upload) -> str:
    return upload.refused.code if upload.refused else ""


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    return tmp_path / "inner"


def test_a_session_leaves_nothing() -> None:
    with session_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "x").write_bytes(b"x")
    assert not folder.exists()
    with pytest.raises(RuntimeError), session_folder() as folder:
        raise RuntimeError
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("holiday.jpg", "holiday.jpg"),
        ("C:\\fakepath\\a.png", "a.png"),
        ("a\x1b[31m\n.png", "a\\x1b[31m\\n.png"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("Straße 1.webp", "Straße 1.webp"),
        ("/", "file"),
        ("\udcff.png", "\\udcff.png"),
    ],
)
def test_names_to_show(name: str, shown: str) -> None:
    assert display_name(name) == shown
    assert len(display_name("x" * 1000 + ".jpg")) == 80


def test_what_is_accepted_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.exe").write_bytes(picture())
    upload = accept(tmp_path / "x.exe", Limits(), "../photo.png")
    assert (upload.kind, upload.width, upload.height, upload.bytes) == ("image", 32, 32, len(picture()))
    assert upload.name_for_display == "photo.png" and len(upload.sha256) == 64
    first, second = Image.fromarray(toyface(0, 32)).convert("P"), Image.fromarray(toyface(1, 32)).convert("P")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert accept(tmp_path / "a.gif").animated and not upload.animated


@pytest.mark.parametrize(
    ("content", "limits", "code"),
    [
        (b"", Limits(), "empty"),
        (b"a text file named .jpg", Limits(), "not-an-image"),
        (picture(), Limits(bytes_image=100), "too-large"),
        (picture(), Limits(pixels=1023), "too-many-pixels"),
        (picture("WEBP"), Limits(pixels=1023), "too-many-pixels"),
        (picture()[:20], Limits(), "damaged"),
    ],
)
def test_what_is_refused(content: bytes, limits: Limits, code: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(Refused) as caught:
        accept(tmp_path / "a.jpg", limits, "secret name.jpg")
    assert caught.value.code == code and caught.value.hint
    assert caught.value.status == (413 if code.startswith("too") else 415 if code == "not-an-image" else 422)
    assert "secret" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing"):
        with pytest.raises(Refused):
            accept(path)


def test_a_zip_is_unpacked_under_numbers(tmp_path: Path, inner: Path) -> None:
    path = zipped(
        tmp_path,
        {
            "holiday/a.png": picture(),
            "b": picture("WEBP"),
            "notes.txt": b"hello",
            "holiday/": b"",
            "__MACOSX/holiday/._a.png": b"x",
            ".DS_Store": b"x",
            "cut.png": picture()[:20],
        },
    )
    uploads = unpack(accept(path), inner)
    assert [(each.name_for_display, each.kind, _code(each)) for each in uploads] == [
        ("a.png", "image", ""),
        ("b", "image", ""),
        ("notes.txt", "unknown", "not-an-image"),
        ("cut.png", "unknown", "damaged"),
    ]
    assert sorted(file.name for file in inner.iterdir()) == ["00000", "00001"]
    assert uploads[0].path.read_bytes() == picture()


def test_one_damaged_member_does_not_spoil_the_others(tmp_path: Path, inner: Path) -> None:
    path = zipped(tmp_path, {"a.png": picture(), "b.png": picture()}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(picture()) + 200] ^= 1
    path.write_bytes(content)
    assert [_code(each) for each in unpack(accept(path), inner)] == ["damaged", ""]


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "..\\a.png", "C:\\a.png", "C:a.png"])
def test_paths_that_lead_out(name: str, tmp_path: Path, inner: Path) -> None:
    assert refusal(zipped(tmp_path, {"a.png": picture(), name: picture()}), inner) == "unsafe-archive"
    assert not list(inner.iterdir())


def test_links_passwords_and_archives_inside(tmp_path: Path, inner: Path) -> None:
    link = zipfile.ZipInfo("a.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert refusal(tmp_path / "link.zip", inner) == "unsafe-archive"
    locked = bytearray(zipped(tmp_path, {"a.png": picture()}).read_bytes())
    locked[6] |= 1
    locked[locked.rindex(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    assert refusal(tmp_path / "locked.zip", inner) == "encrypted"
    assert refusal(zipped(tmp_path, {"b.png": bytes(locked)}), inner) == "nested-archive"
    assert refusal(zipped(tmp_path, {"b.png": b"\x1f\x8b\x08" + bytes(99)}), inner) == "nested-archive"
    assert refusal(zipped(tmp_path, {"a.png": picture()}, zipfile.ZIP_LZMA), inner) == "unsafe-archive"
    assert refusal(zipped(tmp_path, {}), inner) == "empty"


def test_one_part_of_several(tmp_path: Path, inner: Path) -> None:
    content = bytearray(zipped(tmp_path, {"a.png": picture()}).read_bytes())
    content[content.rindex(b"PK\5\6") + 4] = 2  # its number
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(Refused, match="one part of an archive in several: join them first"):
        unpack(accept(tmp_path / "a.zip"), inner)


def test_bombs(tmp_path: Path, inner: Path) -> None:
    bomb = picture() + bytes(3 << 20)
    assert refusal(zipped(tmp_path, {"a.png": bomb}), inner) == "unsafe-archive"
    lying = bytearray(zipped(tmp_path, {"a.png": bomb}).read_bytes())  # its directory says that it is small
    at = lying.rindex(b"PK\1\2") + 24
    lying[at : at + 4] = struct.pack("<I", 1000)
    (tmp_path / "lying.zip").write_bytes(lying)
    assert [_code(each) for each in unpack(accept(tmp_path / "lying.zip"), inner)] == ["damaged"]
    assert not list(inner.iterdir())


def test_too_much_in_an_archive(tmp_path: Path, inner: Path) -> None:
    many = zipped(tmp_path, {f"{n}.png": picture() for n in range(5)}, zipfile.ZIP_STORED)
    assert refusal(many, inner, Limits(files=4)) == "too-many-files"
    assert refusal(many, inner, Limits(bytes_archive=200)) == "too-large"
    assert [_code(each) for each in unpack(accept(many), inner, Limits(bytes_image=100))] == ["too-large"] * 5
    small = Limits(bytes_archive=1 << 20)
    assert refusal(zipped(tmp_path, {"a.png": picture() + os.urandom(1 << 20)}), inner, small) == "too-large"


def test_a_directory_that_would_fill_the_memory(tmp_path: Path, inner: Path) -> None:
    path = zipped(tmp_path, {f"{n:>0200}.png": b"" for n in range(6000)}, zipfile.ZIP_STORED)
    assert refusal(path, inner, Limits(files=4)) == "too-many-files"
    cut = zipped(tmp_path, {"a.png": picture()}).read_bytes()[:-10]
    (tmp_path / "cut.zip").write_bytes(cut)
    assert refusal(tmp_path / "cut.zip", inner) == "damaged"


def test_two_hundred_damaged_files() -> None:
    pytest.importorskip("av")
    path = Path(__file__).parents[3] / "benchmarks" / "fuzz_decoder.py"
    spec = importlib.util.spec_from_file_location("fuzz_decoder", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outcomes = Counter(outcome for _, outcome in module.fuzz(seed=1, start=0, count=200))
    assert outcomes.total() == 200 and {"decoded", "damaged", "unreadable", "unpacked"} <= set(outcomes)
