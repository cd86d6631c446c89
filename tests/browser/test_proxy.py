"""The page in a browser that comes through nginx, by the public address of the how-to."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ..serve.proxy import PUBLIC, behind_nginx, find_nginx, serving


@pytest.mark.slow
@pytest.mark.parametrize("without", ["", "proxy_set_header Host"], ids=["as it is", "Host rewritten"])
def test_a_picture_is_analysed_through_the_proxy(
    bundle: Path, faces: Path, tmp_path: Path, browser: Any, without: str
) -> None:
    find_nginx()
    options = ("--public-url", PUBLIC, "--trusted-proxy", "127.0.0.1")
    with serving(bundle, tmp_path, *options) as port, behind_nginx(tmp_path, port, without) as own:
        rules = f"--host-resolver-rules=MAP facts.example:443 127.0.0.1:{own}"
        there = browser.browser_type.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", rules, "--ignore-certificate-errors"],
        )
        try:
            page, elsewhere = there.new_page(), []
            page.on("request", lambda request: elsewhere.append(request.url))
            page.goto(f"{PUBLIC}/")
            page.wait_for_selector("#cf-analyse input[type=file]")
            page.set_input_files("#cf-analyse input[type=file]", faces / "face-0.png")
            page.wait_for_selector("#cf-files a")
            assert page.locator("#cf-result h2").inner_text().strip().lower() in (
                "real",
                "fake",
                "uncertain",
            )
            link = page.get_by_text("Figures as JSON").evaluate("each => each.href")
            assert link.startswith(PUBLIC)
            assert not [url for url in elsewhere if not url.startswith((PUBLIC, "data:", "blob:"))]
        finally:
            there.close()
