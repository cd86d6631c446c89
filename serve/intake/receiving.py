"""Files as they come in: written once, into a private folder, and cut off as soon as they are seen to be too much."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from crossfake.serve.intake.accepting import (
    TAKEN,
)
from crossfake.serve.intake.headers import Refused, kind_of
from crossfake.serve.intake.limits import Limits
from crossfake.serve.web.security import too_large

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks
    from starlette.requests import Request

_HEAD = 4096  # bytes that say what a file is
_LONGEST_NAME = 1024


@dataclass(frozen=True)
class Received:
    """One file of a request; its own name is only shown.

    Attributes:
        path: where it lies, under a number.
        name: what the sender calls it.
        kind: by content.
        problem: why it was dropped, where ``strict`` is false.
    """

    path: Path
    name: str
    kind: str = ""
    problem: Refused | None = None


async def receive_files(
    request: Request,
    folder: Path,
    limits: Limits,
    *,
    field: str,
    kinds: Collection[str],
    most: int,
    files: int = 1,
    strict: bool = True,
    charge: Callable[[str, int], None] = lambda name, count: None,
) -> list[Received]:
    """Read the files of a ``multipart/form-data`` request.

    Args:
        folder: private; takes the files.
        limits: of one file of each kind.
        field: name of the form's field.
        kinds: that are taken.
        most: bytes of all of them.
        files: at most so many.
        strict: refuse the request for one file of the wrong kind or size, rather than drop that file.
        charge: is told a file's name and how many bytes are about to be stored; what it raises ends the request.

    Raises:
        Refused: the request is malformed or too much, or its sender went away.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
    from starlette.requests import ClientDisconnect

    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused("not-multipart", "this is no multipart/form-data", f"curl -F {field}=@photo.jpg …", 415)
    form = _Form(folder, limits, field, kinds, most, files, strict, charge)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
        if not form.complete:
            raise _malformed("it ends too early")
    except FormParserError as error:
        raise _malformed("its form is damaged") from error
    except ClientDisconnect as error:
        raise gone() from error
    except OSError as error:
        raise Refused(
            "no-space", f"the file cannot be stored ({error.strerror})", "try later", 507
        ) from error
    finally:
        form.close()
    if not form.received:
        raise _malformed(f"there is no file in a field {field!r}")
    return form.received


class _Form:
    """What the parser tells, part by part."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        field: str,
        kinds: Collection[str],
        most: int,
        files: int,
        strict: bool,
        charge: Callable[[str, int], None],
    ) -> None:
        self.folder, self.limits, self.field, self.kinds = folder, limits, field, kinds
        self.most, self.files, self.strict, self._charge = most, files, strict, charge
        self.received: list[Received] = []
        self.complete = False
        self._total = 0
        self._file: BinaryIO | None = None
        self._begin()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header_begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._part_end,
            "on_end": lambda: setattr(self, "complete", True),
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._name, self._size, self._head = "", 0, bytearray()
        self._kind, self._problem, self._disposition = "", None, b""
        self._header = (bytearray(), bytearray())

    _problem: Refused | None

    def _header_begin(self) -> None:
        self._header = (bytearray(), bytearray())

    def _header_end(self) -> None:
        if bytes(self._header[0]).lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])

    def _headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != self.field or b"filename" not in options:
            raise _malformed(f"it may hold files in fields {self.field!r}, and nothing else")
        if len(self.received) >= self.files:
            raise Refused(
                "too-many-files", f"there are more than {self.files} files", "send fewer at once", 413
            )
        self._name = options[b"filename"].decode("utf-8", "replace")[:_LONGEST_NAME]
        self._path = self.folder / f"{len(self.received)}"
        self._file = open(self._path, "wb")  # noqa: SIM115  # closed at the end of the part, or by close()

    def _data(self, data: bytes) -> None:
        self._total += len(data)
        if self._total > self.most:
            raise too_large(self.most)
        if self._problem is not None:
            return
        self._charge(self._name, len(data))
        self._size += len(data)
        if not self._kind:
            self._head += data
            if len(self._head) < _HEAD:
                return
            data = self._recognise()
        if self._kind and self._size > (limit := self.limits.bytes_of(self._kind)):
            self._drop(too_large(limit, f"the {self._kind}"))
        elif self._problem is None and self._file is not None:
            self._file.write(data)

    def _recognise(self) -> bytes:
        """What the file is by its first bytes; returns them, to be written."""
        head = bytes(self._head)
        kind = kind_of(head)
        if not head:
            self._drop(Refused("empty", "the file is empty", "send a picture or a video"))
        elif kind is None:
            words = (
                f"no file of a known kind: {TAKEN}"
                if "archive" in self.kinds
                else "neither a picture nor a video"
            )
            self._drop(Refused("not-an-image", f"this is {words}", "send another file", 415))
        elif kind not in self.kinds:
            hint = "send it to /api/v1/batch" if kind == "archive" else "send pictures, or one zip of them"
            self._drop(Refused("wrong-kind", f"{kind}s are not taken here", hint, 415))
        else:
            self._kind = kind
        return head

    def _drop(self, problem: Refused) -> None:
        if self.strict:
            raise problem
        self._problem = problem

    def _part_end(self) -> None:
        if not self._kind and self._problem is None:  # shorter than what says what it is
            head = self._recognise()
            if self._problem is None and self._file is not None:
                self._file.write(head)
        self.close()
        if self._problem is not None:
            self._path.unlink()
        self.received.append(Received(self._path, self._name, self._kind, self._problem))


def gone() -> Refused:
    """Nobody reads the answer; it is counted as what it is, not as a fault of the server."""
    return Refused("gone", "the client went away", "", 499)


def _malformed(what: str) -> Refused:
    return Refused("malformed", f"the request cannot be read: {what}", "see /api/v1/docs", 400)
