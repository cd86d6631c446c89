"""What others wrote and this package carries is byte for byte what npm has, and its licence is beside it."""

import hashlib
from pathlib import Path

VENDOR = Path(__file__).parents[3] / "serve" / "web" / "static" / "vendor"
AXE = Path(__file__).parents[2] / "browser" / "vendor"
FILES = {
    # htmx.org 2.0.11 dist/htmx.min.js, htmx-ext-sse 2.2.4 dist/sse.min.js, swagger-ui-dist 5.35.0
    VENDOR / "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    VENDOR / "htmx-sse.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
    VENDOR / "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    VENDOR / "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
    # axe-core 4.14.1, for tests/browser alone
    AXE / "axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
}
LICENCES = {"htmx": "BSD", "htmx-sse": "BSD", "swagger-ui": "Apache", "axe": "Mozilla"}


def test_files_are_those_of_npm() -> None:
    for path, digest in FILES.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, path.name
    there = {path for folder in (VENDOR, AXE) for path in folder.iterdir() if "LICENSE" not in path.name}
    assert there == set(FILES)


def test_licences_are_beside_them() -> None:
    for name, word in LICENCES.items():
        folder = AXE if name == "axe" else VENDOR
        assert word in (folder / f"{name}.LICENSE.txt").read_text(), name
