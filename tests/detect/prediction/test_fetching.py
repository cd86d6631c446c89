import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from crossfake.datasets.crops import Cropper
from crossfake.detect.prediction.fetching import fetch
from crossfake.detect.prediction.media import find_inputs, open_media
from crossfake.errors import UserError


class _Handler(http.server.BaseHTTPRequestHandler):
    pictures: Path

    def do_GET(self) -> None:
        ways = {
            "/file": "file:///etc/passwd",
            "/ftp": "ftp://localhost/a.png",
            "/on": "/a.png",
            "/round": "/round",
        }
        if self.path in ways:
            self.send_response(302)
            self.send_header("Location", ways[self.path])
            self.end_headers()
        elif self.path in ("/a.png", "/a.mp4", "/short"):
            content = (self.pictures / "a.png").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain" if self.path == "/a.mp4" else "image/png")
            self.send_header("Content-Length", str(len(content) + (self.path == "/short")))
            self.end_headers()
            self.wfile.write(content)
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.02)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    handler = type("Handler", (_Handler,), {"pictures": tmp_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_pictures_are_fetched_and_redirects_followed(site: str, tmp_path: Path) -> None:
    content = (tmp_path / "a.png").read_bytes()
    assert fetch(f"{site}/a.png") == (content, False) == fetch(f"{site}/on")
    assert fetch(f"{site}/a.mp4") == (content, True)  # by its name, where the type says nothing
    urls = [f"{site}/a.png", f"{site}/none", f"{site}/a.mp4"]
    media = list(open_media(find_inputs(urls, allow_urls=True), Cropper(8, "none"), keep_fetched=True))
    assert [bool(m.looks) for m in media] == [True, False, True]  # FFmpeg reads pictures, too
    assert media[0].content == content and "404" in media[1].problem


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("/file", "file:///etc/passwd. is not allowed"),
        ("/ftp", "leads to ftp"),
        ("/round", "cannot be fetched"),
        ("/none", "404"),
        ("/short", "broke off"),
        ("/slow", "longer than"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(path: str, match: str, site: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        fetch(site + path, most_seconds=0.3)
    assert "\n" not in str(error.value)


def test_sizes_schemes_and_dead_servers(site: str) -> None:
    with pytest.raises(UserError, match="more than 20 bytes"):
        fetch(f"{site}/a.png", most_bytes=20)
    for url in ("file:///etc/passwd", "ftp://localhost/a", "data://x", "http://", "http://[::1"):
        with pytest.raises(UserError, match="no web address"):
            fetch(url)
    for url in ("http://127.0.0.1:9/a.png", "http://a b/"):
        with pytest.raises(UserError, match="cannot be fetched"):
            fetch(url, most_seconds=2)
