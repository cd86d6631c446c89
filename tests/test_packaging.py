"""What is installed equals what is in the folders, and what the documents promise is there."""

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"core": "crossfake"} | {
    p: f"crossfake.{p}" for p in ("datasets", "detect", "experiments", "serve", "synth")
}
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
]


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_wheel_holds_every_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in [*PARTS, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    shutil.rmtree(source / "core" / "__pycache__", ignore_errors=True)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    wheel = tmp_path / _run(sys.executable, "-c", build, str(tmp_path), cwd=source).splitlines()[-1]
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(n for n in archive.namelist() if n.endswith("/METADATA"))
        assert "License-Expression: Apache-2.0" in archive.read(metadata).decode()
    expected = {
        "/".join((name.replace(".", "/"), *path.relative_to(ROOT / part).parts))
        for part, name in PARTS.items()
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == expected


@pytest.mark.parametrize("command", ["synth", "detect", "crossfake"])
def test_console_script_answers_help(command: str) -> None:
    script = shutil.which(command, path=Path(sys.executable).parent)
    assert script, f"{command} is not installed beside {sys.executable}"
    assert "Commands:" in _run(script, "--help")


@pytest.mark.parametrize("part", ["synth", "detect", "data", "experiment"])
def test_help_loads_nothing_heavy(part: str) -> None:
    heavy = {
        "cv2",
        "h5py",
        "kornia",
        "matplotlib",
        "numpy",
        "scipy",
        "sklearn",
        "timm",
        "torch",
        "torchvision",
    }
    help_ = f"import sys\nfrom crossfake.cli import main\nmain([{part!r}, '--help'], standalone_mode=False)\n"
    assert _run(sys.executable, "-c", f"{help_}print(*{heavy!r} & set(sys.modules))").splitlines()[-1] == ""


def _documented() -> list[str]:
    """Every command line in the code blocks of the documents, without comments and settings of variables."""
    lines = []
    for document in DOCUMENTS:
        for block in re.findall(
            r"^```(?:sh|bash|console)\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S
        ):
            lines += [re.sub(r" #.*|^[A-Z_]+=\S+ ", "", line).strip() for line in block.splitlines()]
    return sorted({line for line in lines if line})


@pytest.mark.parametrize("line", [c for c in _documented() if re.match(r"(synth|detect|crossfake) ", c)])
def test_documented_command_exists_with_its_options(line: str) -> None:
    """Each word of the documents' commands leads to a command, each option to one that it has."""
    import click

    from crossfake.cli import main

    words = line.split()
    words = words[1:] if words[0] == "crossfake" else words
    command: click.Command = main
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"{line}: there is no command {words[0]}"
        command, words = found, words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words if word.startswith("-")}
    assert used <= known, f"{line}: no option {', '.join(sorted(used - known))}"


def test_documented_make_targets_exist() -> None:
    targets = {m for line in _documented() for m in re.findall(r"\bmake ([a-z-]+)", line)}
    assert {"demo", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_documents_link_to_files_that_are_there(document: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / document).read_text())
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


# Of what mkdocs is made of: its parts do not always fit each other's newest versions.
BELOW = {"griffelib", "mkdocs", "mkdocs-autorefs", "mkdocstrings-python"}


def test_constraints_cover_every_requirement() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"].split() + config["options.extras_require"]["dev"].split()
    names = {re.split(r"[<>=!~[]", line)[0].lower() for line in wanted}
    text = (ROOT / "constraints.txt").read_text()
    held = {
        re.split(r"[<>=!~]", line)[0].lower()
        for line in text.splitlines()
        if line and not line.startswith("#")
    }
    assert names <= held and held - names <= BELOW
