"""Files as they come in: written once, counted on their way, and put into a private folder under numbers."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from crossfake.serve.intake.accepting import Received
from crossfake.serve.intake.headers import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

_LONGEST_NAME = 1024


class _Parser(MultiPartParser):
    """Starlette's, which also knows whether the form came to its end."""

    complete = False

    def on_end(self) -> None:
        self.complete = True


async def receive_files(
    request: Request,
    folder: Path,
    *,
    field: str,
    files: int = 1,
    charge: Callable[[int], None] = lambda count: None,
) -> list[Received]:
    """Read the files of a ``multipart/form-data`` request; the server's guard cuts off what is too long.

    Args:
        folder: private; takes the files.
        field: name of the form's field, the only one.
        files: at most so many.
        charge: is told how many bytes came; what it raises ends the request.

    Raises:
        Refused: the request is malformed or too much, or its sender went away.
    """
    from starlette.requests import ClientDisconnect

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused("not-multipart", "this is no multipart/form-data", f"curl -F {field}=@photo.jpg …", 415)

    async def counted() -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
            charge(len(chunk))
            yield chunk

    parser = _Parser(request.headers, counted(), max_files=files, max_fields=0)
    try:
        form = await parser.parse()
        try:
            if not parser.complete:
                raise _malformed("it ends too early")
            sent = [(name, file) for name, file in form.multi_items() if _chosen(file)]
            if not sent or any(name != field for name, _ in sent):
                raise _malformed(f"it holds files in fields {field!r}, and nothing else")
            return [
                await run_in_threadpool(_keep, file.file, folder / f"{number}", file.filename or "")
                for number, (_, file) in enumerate(sent)
                if isinstance(file, UploadFile)
            ]
        finally:
            await form.close()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Refused(
                "too-many-files", f"there are more than {files} files", "send fewer at once", 413
            ) from error
        if error.message.startswith("Missing boundary"):
            raise Refused(
                "not-multipart", "this form has no boundary", "let a program make it", 415
            ) from error
        raise _malformed("its form is damaged") from error
    except ClientDisconnect as error:
        raise gone() from error
    except OSError as error:
        raise Refused("no-space", f"it cannot be stored ({error.strerror})", "try later", 507) from error


def _chosen(file: UploadFile | str) -> bool:
    """Whether a file was chosen: a browser sends a field that is left empty, too."""
    return isinstance(file, UploadFile) and bool(file.filename or file.size)


def _keep(file: BinaryIO, path: Path, name: str) -> Received:
    with open(path, "xb") as out:
        shutil.copyfileobj(file, out)
    return Received(path, name[:_LONGEST_NAME])


def gone() -> Refused:
    """Nobody reads the answer; it is counted as what it is, not as a fault of the server."""
    return Refused("gone", "the client went away", "", 499)


def _malformed(what: str) -> Refused:
    return Refused("malformed", f"the request cannot be read: {what}", "see /api/v1/docs", 400)
