"""One server and one browser a module: the page as `detect serve` serves it, and Debian's chromium."""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.toyfaces import toyface
from crossfake.serve.intake.limits import Limits

from ..detect.conftest import fake, real, trained  # noqa: F401
from ..serve.conftest import bundle, second  # noqa: F401

LIMITS = Limits(bytes_archive=80 << 20)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps what visitors send."""
    return tmp_path_factory.mktemp("sent") / "here"


@pytest.fixture(scope="session")
def address(
    bundle: Path,  # noqa: F811
    second: Path,  # noqa: F811
    folder: Path,
) -> Iterator[str]:
    """Where the page answers, with two detectors."""
    uvicorn = pytest.importorskip("uvicorn")
    from crossfake.serve.settings import ServeSettings
    from crossfake.serve.web.app import create_app

    settings = ServeSettings((bundle, second), limits=LIMITS, rate=100_000)
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            log_level="warning",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    tempfile.tempdir = before
    server.should_exit = True
    thread.join(10)


def write_video(path: Path, size: int = 96, count: int = 24) -> None:
    """Two seconds of a drawn face that becomes another."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=12)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            share = number / count
            picture = (1 - share) * toyface(1, size) + share * toyface(2, size)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        out.mux(stream.encode(None))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless chromium. Playwright keeps this thread's event loop running, so it ends before other modules begin."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page in a context of its own; fails on any request to elsewhere and any error in a script."""
    contexts, wrong = [], []

    def watch(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")) and "csp" not in (request.failure or ""):
            wrong.append(f"request to {request.url}")

    def visit(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("requestfinished", watch)
        page.on("requestfailed", watch)  # what the headers forbid is never sent
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#cf-analyse input[type=file]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn faces as files, and some that are none."""
    folder = tmp_path_factory.mktemp("faces")
    for number in range(3):
        Image.fromarray(toyface(number, 96)).save(folder / f"face-{number}.png")
    write_video(folder / "film.mp4")
    (folder / "letter.jpg").write_text("Dear editor,\n" * 50)
    large = np.zeros((5000, 10000, 3), np.uint8)
    large[:, ::64] = 90
    Image.fromarray(large).save(folder / "large.jpg", quality=60)
    Image.new("1", (9000, 9000)).save(folder / "too-large.png")
    return folder
