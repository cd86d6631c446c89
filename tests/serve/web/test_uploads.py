import asyncio
import io
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from starlette.requests import Request

from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import Limits
from crossfake.serve.web.uploads import _OLD, Uploads

PNG = b"\x89PNG\r\n\x1a\n"


def _form(*files: bytes) -> bytes:
    out = io.BytesIO()
    for content in files:
        out.write(
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="anna.png"\r\n\r\n'
            + content
            + b"\r\n"
        )
    out.write(b"--b--\r\n")
    return out.getvalue()


def _request(parts: list[bytes]) -> Request:
    async def receive() -> Any:
        await asyncio.sleep(0)
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    return Request(
        {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}, receive
    )


def _send(uploads: Uploads, visitor: str, *files: bytes) -> list[str]:
    return asyncio.run(uploads.receive(_request([_form(*files)]), visitor))


def _files(uploads: Uploads) -> list[Path]:
    return [path for path in uploads.root.rglob("*") if path.is_file()]


@pytest.fixture
def uploads() -> Any:
    made = Uploads(Limits(bytes_image=10_000, bytes_archive=20_000, files=3))
    yield made
    made.close()
    assert not made.root.exists()


def test_cookies_are_this_servers_alone(uploads: Uploads) -> None:
    cookie = uploads.admit()
    visitor = uploads.visitor(cookie)
    assert visitor and cookie.startswith(visitor) and uploads.visitor(uploads.admit()) != visitor
    other = Uploads()
    for wrong in (
        None,
        "",
        ".",
        visitor,
        f"{visitor}.",
        cookie[:-1],
        f"x{cookie}",
        other.admit(),
        "é.é",
        "../x.y",
    ):
        assert uploads.visitor(wrong) is None, wrong
    other.close()


def test_a_file_is_its_senders_and_taken_once(uploads: Uploads, tmp_path: Path) -> None:
    [word] = _send(uploads, "me", PNG + b"x" * 100)
    path = uploads.path("me", word)
    assert (
        path.read_bytes() == PNG + b"x" * 100
        and "anna" not in str(path)
        and path.is_relative_to(uploads.root)
    )
    assert path.stat().st_mode & 0o777 and uploads.root.stat().st_mode & 0o077 == 0
    foreign = tmp_path / "other.png"
    foreign.write_bytes(PNG)
    (path.parent / "link.upload").symlink_to(foreign)
    said = set()
    for visitor, name in (
        ("you", word), ("me", str(foreign)), ("me", "/nowhere"), ("me", str(path)), ("me", f"../me/{word}"),
        ("me", None), ("me", {"path": word}), ("me", "link"), ("me", "http://example.org/x.png"), ("", word),
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            uploads.path(visitor, name)
        said.add((caught.value.code, caught.value.message, caught.value.hint, caught.value.status))
    for visitor, name in (
        ("you", str(path)), ("me", str(foreign)), ("me", word), ("me", str(path.parent / "link.upload")), ("me", None),
        ("me", f"{path.parent}/../me/{path.name}"), ("me", f"{path}/."), ("me", "/nowhere"), ("me", [str(path)]),
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            uploads.claim(visitor, name)
        said.add((caught.value.code, caught.value.message, caught.value.hint, caught.value.status))
    assert len(said) == 1
    taken = uploads.claim("me", str(path))
    assert taken.name == "anna.png" and taken.kind == "image" and taken.path == path
    with pytest.raises(Refused):
        uploads.claim("me", str(path))


def test_what_is_too_much_is_refused_and_leaves_nothing(uploads: Uploads) -> None:
    uploads.each, uploads.total = 15_000, 22_000
    _send(uploads, "me", PNG + bytes(8_000))
    with pytest.raises(Refused) as caught:  # with what is here already
        _send(uploads, "me", PNG + bytes(8_000))
    assert (caught.value.code, caught.value.status) == ("quota", 413)
    _send(uploads, "you", PNG + bytes(8_000))
    with pytest.raises(Refused, match="too much"):  # of all
        _send(uploads, "they", PNG + bytes(8_000))
    assert len(_files(uploads)) == 2 and not uploads._coming
    [word] = _send(uploads, "you", b"neither this nor that")
    assert (
        uploads.claim("you", str(uploads.path("you", word))).problem is not None and len(_files(uploads)) == 2
    )


def test_uploads_at_one_time_are_added_up(uploads: Uploads) -> None:
    uploads.each = 15_000
    body = _form(PNG + bytes(8_000))
    halves = [body[:7000], body[7000:]]

    async def both() -> list[Any]:
        sent = (uploads.receive(_request([*halves]), "me") for _ in range(2))
        return list(await asyncio.gather(*sent, return_exceptions=True))

    kinds = sorted(type(each).__name__ for each in asyncio.run(both()))
    assert kinds in (["Refused", "list"], ["Refused", "Refused"]) and len(_files(uploads)) <= 1


def test_too_many_small_files_are_refused(uploads: Uploads) -> None:
    for _ in range(2):
        _send(uploads, "me", *[PNG] * 3)
    with pytest.raises(Refused, match="too many files"):
        _send(uploads, "me", PNG)
    with pytest.raises(Refused):
        _send(uploads, "you", *[PNG] * 4)


def test_what_nobody_takes_is_deleted(uploads: Uploads) -> None:
    [old] = _send(uploads, "me", PNG + b"x")
    path = uploads.path("me", old)
    uploads.sweep()
    assert path.exists()
    uploads.sweep(time.monotonic() + _OLD + 1)
    assert not path.parent.exists()
    with pytest.raises(Refused):
        uploads.path("me", old)


def test_a_form_that_breaks_off_leaves_nothing(uploads: Uploads) -> None:
    with pytest.raises(Refused):
        asyncio.run(uploads.receive(_request([_form(PNG + bytes(5000))[:3000]]), "me"))
    assert not _files(uploads) and not uploads._coming
