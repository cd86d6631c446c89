"""Visitors' files: whose they are, how much there may be, and when they go."""

import asyncio
import io
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.requests import Request

from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import Limits
from crossfake.serve.web.visits import Case, Visit, Visits, _bytes

PNG = b"\x89PNG\r\n\x1a\n"


def _form(*files: bytes) -> bytes:
    out = io.BytesIO()
    for content in files:
        out.write(
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="anna.png"\r\n\r\n' + content
        )
        out.write(b"\r\n")
    out.write(b"--b--\r\n")
    return out.getvalue()


def _request(parts: list[bytes]) -> Request:
    async def receive() -> Any:
        await asyncio.sleep(0)
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    return Request(scope, receive)


def _send(visits: Visits, visit: Visit, *files: bytes) -> Case:
    options = {"field": "files", "files": 3}
    return asyncio.run(visits.receive(_request([_form(*files)]), visit, "batch", **options))[0]


def _files(visits: Visits) -> list[Path]:
    return [path for path in visits.root.rglob("*") if path.is_file()]


@pytest.fixture
def visits() -> Any:
    made = Visits(Limits(bytes_image=10_000, bytes_archive=20_000, files=3))
    yield made
    made.close()
    assert not made.root.exists()


def test_a_visit_is_known_by_its_cookie_alone(visits: Visits) -> None:
    cookie, visit = visits.open()
    assert visits.of(cookie) is visit and len(cookie) > 40
    for wrong in (None, "", cookie[:-1], f"x{cookie}", "../x", "é", visits.open()[0]):
        assert visits.of(wrong) is not visit
    assert visits.root.stat().st_mode & 0o077 == 0 and visit.folder.stat().st_mode & 0o077 == 0


def test_files_lie_under_numbers_in_a_folder_that_nobody_can_guess(visits: Visits) -> None:
    case = _send(visits, visits.open()[1], PNG + b"x" * 100, PNG)
    found = _files(visits)
    assert sorted(path.name for path in found) == ["0", "1"] and {path.parent for path in found} == {
        case.folder
    }
    assert len(case.folder.name) > 20 and case.token not in str(case.folder) and "anna" not in str(found)


def test_what_is_too_much_is_refused_and_leaves_nothing(visits: Visits) -> None:
    visits.each, visits.total = 15_000, 22_000
    me, you, they = (visits.open()[1] for _ in range(3))
    _send(visits, me, PNG + bytes(8_000))
    for visit in (me, they):
        if visit is they:
            _send(visits, you, PNG + bytes(8_000))
        with pytest.raises(Refused) as caught:  # with what is here of one's own; then of all
            _send(visits, visit, PNG + bytes(8_000))
        assert (caught.value.code, caught.value.status) == ("quota", 413)
    assert len(_files(visits)) == 2 and not me.coming and not they.cases
    with pytest.raises(Refused, match="more than 3 files"):
        _send(visits, they, *[PNG] * 4)
    assert len(_files(visits)) == 2


def test_uploads_at_one_time_are_added_up(visits: Visits) -> None:
    visits.each = 15_000
    body, visit = _form(PNG + bytes(8_000)), visits.open()[1]
    halves = [body[:7000], body[7000:]]

    async def both() -> list[Any]:
        sent = (visits.receive(_request([*halves]), visit, "batch", field="files") for _ in range(2))
        return list(await asyncio.gather(*sent, return_exceptions=True))

    kinds = sorted(type(each).__name__ for each in asyncio.run(both()))
    assert kinds in (["Refused", "tuple"], ["Refused", "Refused"]) and len(_files(visits)) <= 1


def test_a_form_that_breaks_off_leaves_nothing(visits: Visits) -> None:
    visit = visits.open()[1]
    whole = _form(PNG + bytes(3000), PNG + bytes(3000))
    for cut in (2000, 5000, len(whole) - 4):
        with pytest.raises(Refused) as caught:
            asyncio.run(visits.receive(_request([whole[:cut]]), visit, "batch", field="files", files=3))
        assert caught.value.code == "malformed"
    assert not _files(visits) and not visit.coming and not visit.cases


def test_of_each_kind_the_oldest_goes(visits: Visits) -> None:
    visit = visits.open()[1]
    other = visit.begin("batch")
    cases = [visit.begin("analyse") for _ in range(4)]
    (cases[1].folder / "x").write_bytes(b"x")
    assert cases[0].stop.is_set() and not cases[0].folder.exists() and cases[0].token not in visit.cases
    assert list(visit.cases.values()) == [other, *cases[1:]]
    taken = cases[2].take(cases[1].folder / "x")
    visit.begin("analyse")
    assert not cases[1].folder.exists() and taken.read_bytes() == b"x"


def test_a_visit_ends_when_its_last_page_is_closed_or_after_an_hour(visits: Visits) -> None:
    (_, gone), (_, back), (_, idle), (cookie, kept) = (visits.open() for _ in range(4))
    for visit in (gone, back):
        visit.here("1")
        visit.leave("1")
    back.here("2")  # loaded again
    now = time.monotonic()
    visits.sweep(now + 5)
    assert gone.folder.exists()
    visits.sweep(now + 20)
    assert not gone.folder.exists() and back.folder.exists()
    back.leave("2")
    idle.seen -= 3000
    visits.sweep(now + 700)
    assert not back.folder.exists() and not idle.folder.exists() and visits.of(cookie) is kept


def test_work_that_nobody_looks_at_is_stopped(visits: Visits) -> None:
    visit = visits.open()[1]
    watched, left = visit.begin("analyse"), visit.begin("batch")
    watched.watching = 1
    visits.sweep(time.monotonic() + 20)
    assert left.stop.is_set() and not watched.stop.is_set()


def test_sweeping_while_cases_begin(visits: Visits) -> None:
    visit, over = visits.open()[1], threading.Event()

    def begin() -> None:
        while not over.is_set():
            visit.begin("analyse")

    thread = threading.Thread(target=begin)
    thread.start()
    try:
        for _ in range(300):
            visits.sweep()
    finally:
        over.set()
        thread.join()


def test_bytes_are_counted_while_folders_come_and_go(visits: Visits) -> None:
    visit, over = visits.open()[1], threading.Event()
    (visit.folder / "stays").write_bytes(bytes(7))

    def begin() -> None:
        while not over.is_set():
            visit.begin("analyse").close()

    thread = threading.Thread(target=begin)
    thread.start()
    try:
        assert {_bytes(visits.root) for _ in range(300)} == {7}
    finally:
        over.set()
        thread.join()
