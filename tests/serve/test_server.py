import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crossfake.detect.cli import detect
from crossfake.errors import MissingDependency, UserError
from crossfake.serve.server import serve
from crossfake.serve.settings import ServeSettings, is_loopback

BUNDLE = (Path("x"),)
TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bundles": ()}, "no detector"),
        ({"port": 70_000}, "--port 70000 is out of range"),
        ({"host": "0.0.0.0"}, "0.0.0.0 can be reached by others, and there is no token"),
        ({"host": "example.org"}, "no token"),
        ({"token": "short"}, "16 or more"),
        ({"token": "with spaces in it here"}, "without spaces"),
        ({"concurrent": 0}, "--concurrent 0 is out of range"),
        ({"public_url": "facts.example"}, "no address of a site"),
        ({"public_url": "https://facts.example/page"}, "no address of a site"),
        ({"public_url": "https://me:pw@facts.example"}, "no address of a site"),
        ({"public_url": "https://facts.example:port"}, "no address of a site"),
        ({"trusted_proxies": ("proxy.example",)}, "known by its address"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        ServeSettings(**{"bundles": BUNDLE, **options})


def test_who_is_answered() -> None:
    assert ServeSettings(BUNDLE).hosts == {"localhost", "127.0.0.1", "[::1]"}
    assert "192.168.0.7" in (ServeSettings(BUNDLE, "192.168.0.7", token=TOKEN).hosts or ())
    assert "[fd00::1]" in (ServeSettings(BUNDLE, "fd00::1", token=TOKEN).hosts or ())
    assert ServeSettings(BUNDLE, "0.0.0.0", token=TOKEN).hosts is None
    public = ServeSettings(
        BUNDLE, public_url="HTTPS://Facts.example:443/", trusted_proxies=("10.0.0.0/8", "::1")
    )
    assert public.public_url == "https://facts.example" and "facts.example" in (public.hosts or ())
    other = ServeSettings(BUNDLE, public_url="https://facts.example:8443")
    assert other.public_url == "https://facts.example:8443" and "facts.example" in (other.hosts or ())
    assert not is_loopback("127.0.0.1.example.org") and is_loopback("LOCALHOST")


def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    (tmp_path / "bundle.json").touch()  # a path that leads nowhere would be told before
    x = str(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for args, words in (
            (["--bundle", x, "--port", port], f"port {port} (Address already in use)"),
            (["--bundle", x, "--host", "::", "--port", port], "no token"),
            (["--bundle", "nowhere"], "nowhere holds no detector"),
            (["--bundle", x, "--public-url", "facts"], "is no address of a site"),
            ([], "no trained detector"),
        ):
            result = CliRunner().invoke(detect, ["serve", *args])
            assert result.exit_code == 2 and words in result.output and result.output.count("\n") == 1, (
                result.output
            )
    with pytest.raises(UserError, match="holds no detector"):
        serve(ServeSettings((tmp_path,), port=0, page=False))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingDependency, match=r"\.\[app\]"):
        serve(ServeSettings(BUNDLE))


def test_without_a_bundle_the_newest_run_and_all_models_are_served(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[ServeSettings] = []
    monkeypatch.setattr("crossfake.serve.server.serve", lambda settings, *_: served.append(settings))
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        shutil.copytree(bundle / "model", tmp_path / "models" / name)
    said = CliRunner().invoke(detect, ["serve"])
    assert said.exit_code == 0 and "taking models/a, models/b" in said.output
    shutil.copytree(bundle, tmp_path / "runs" / "own")
    assert CliRunner().invoke(detect, ["serve", "--models", "models"]).exit_code == 0
    assert served[0].bundles == (Path("models/a"), Path("models/b"))
    assert served[1].bundles == (Path("runs/own"), *served[0].bundles)


def test_without_the_page_the_root_leads_to_the_description(bundle: Path) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from crossfake.serve.web.app import create_app

    app = create_app(ServeSettings((bundle,), page=False, device="cpu"))
    with testclient.TestClient(app, base_url="http://localhost:7860") as client:
        assert client.get("/").url.path == "/api/v1/docs"
        assert client.get("/other").status_code == 404


def _start(bundle: Path, tmp_path: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "crossfake.detect", "serve", "--bundle", str(bundle), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--device", "cpu", *options],
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return process, found[0]
    raise AssertionError(process.wait())


def test_a_server_answers_and_stops_cleanly(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    process, address = _start(bundle, tmp_path, "--no-page")
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=60) as answer:
            assert answer.status == 200 and "server" not in {name.lower() for name in answer.headers}
    finally:
        process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[0]  # the warm-up ends first
    assert process.returncode == 0 and rest == "stopped\n"
    assert not list(tmp_path.glob("crossfake-*"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_page_and_the_api_together(bundle: Path, tmp_path: Path, how: signal.Signals) -> None:
    process, address = _start(bundle, tmp_path)
    try:
        with urllib.request.urlopen(address, timeout=120) as answer:
            page, headers = answer.read().decode(), answer.headers
        assert "crossfake" in page and "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        for path, status in (("/api/v1/nothing", 404), ("/api/v1/analyze", 405)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{address}{path}", timeout=60)
            assert caught.value.code == status
            assert "unsafe" not in caught.value.headers["content-security-policy"]
    finally:
        process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == 0 and not list(tmp_path.glob("crossfake-*"))
