"""Behind nginx, as the how-to says."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from crossfake.datasets.toyfaces import toyface

from .proxy import PUBLIC, behind_nginx, find_nginx, serving

httpx = pytest.importorskip("httpx")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    find_nginx()
    folder = tmp_path_factory.mktemp("proxied")
    options = ("--public-url", PUBLIC, "--trusted-proxy", "127.0.0.1", "--rate", "30")
    with serving(bundle, folder, *options) as port:
        yield port


def _browser(port: int, **headers: str) -> Any:
    """What a browser at the public address sends, past its name server."""
    return httpx.Client(
        base_url=f"https://127.0.0.1:{port}",
        verify=False,
        timeout=60,
        headers={"host": "facts.example", "origin": PUBLIC, **headers},
    )


def _picture() -> bytes:
    out = io.BytesIO()
    Image.fromarray(toyface(0, 64)).save(out, "PNG")
    return out.getvalue()


def _analyse(client: Any) -> str:
    """What the page says of a picture."""
    page = client.get("/")
    assert page.status_code == 200
    sent = client.post("/analyse", files={"file": ("face.png", _picture())})
    assert sent.status_code == 303 and "secure" in sent.headers["set-cookie"].lower(), sent.text
    assert sent.headers["location"].startswith("/case/")
    cookie = {"cookie": sent.headers["set-cookie"].partition(";")[0]}
    client.get(f"{sent.headers['location']}/events", headers=cookie)  # until all is there
    return str(client.get(sent.headers["location"], headers=cookie).text)


@pytest.mark.parametrize("without", ["", "proxy_set_header Host"], ids=["as it is", "Host rewritten"])
def test_the_page_and_the_api_work_behind_nginx(server: int, tmp_path: Path, without: str) -> None:
    with behind_nginx(tmp_path, server, without) as port, _browser(port) as client:
        assert "cf-verdict" in _analyse(client)
        answer = client.post("/api/v1/analyze?explain=false", files={"file": _picture()})
        assert answer.status_code == 200 and answer.json()["faces"]
        for origin in ("https://evil.example", "http://facts.example", "https://facts.example:444", "null"):
            refused = client.post("/api/v1/analyze", files={"file": _picture()}, headers={"origin": origin})
            assert (refused.status_code, refused.json()["code"]) == (403, "wrong-origin"), origin
    with behind_nginx(tmp_path, server) as port, _browser(port, host="other.example") as client:
        assert client.get("/").status_code == 421


def test_who_asks_is_what_the_proxy_says_and_nobody_else(server: int, tmp_path: Path) -> None:
    """nginx replaces what a client claims to be; a client that is not the proxy cannot claim anything."""
    with behind_nginx(tmp_path, server) as port:
        codes = []
        for number in range(40):
            with _browser(
                port, **{"x-forwarded-for": f"203.0.113.{number}", "x-forwarded-host": "evil.example"}
            ) as client:
                codes.append(client.post("/api/v1/analyze", content=b"").status_code)
        assert 429 in codes  # all of them came from 127.0.0.1, whatever they said
        with _browser(port, **{"x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher"}) as client:
            page = client.get("/")
            assert "evil" not in json.dumps(dict(page.headers)) + page.text
