"""The documentation: it builds without a warning, its links lead somewhere, and its commands are those there are."""

import html.parser
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from crossfake.datasets.toyfaces import toyface
from crossfake.images import save_png

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(ROOT) for page in (*DOCS.rglob("*.md"), ROOT / "README.md"))
_BLOCK = re.compile(r"(?:^<!-- test: (?P<note>.*?) -->\n)?^```sh\n(?P<text>.*?)^```$", re.M | re.S)
_SMALLER = re.compile(r'"(.*?)" is "(.*?)"')
_COMMANDS = {"crossfake": ["crossfake"], "synth": ["crossfake", "synth"], "detect": ["crossfake", "detect"]}


@dataclass(frozen=True)
class Block:
    """Shell commands of a page. A comment before them says how the test makes them smaller, or why it does not run
    them: ``<!-- test: "--minutes 3" is "--kimg 0.2" -->``, or ``as it is``, or ``not run: a reason``."""

    page: str
    line: int
    text: str
    note: str

    @property
    def small(self) -> str:
        text = self.text
        for old, new in _SMALLER.findall(self.note):
            old = old.replace("\\n", "\n")
            assert old in text, f"{self.page}:{self.line}: {old!r} is not in the block any more"
            text = text.replace(old, new.replace("\\n", "\n"), 1)
        return text


def blocks(page: Path) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(str(page), text[: found.start("text")].count("\n") + 1, found["text"], found["note"] or "")
        for found in _BLOCK.finditer(text)
    ]


def run_blocks(page: str, folder: Path, before: str = "", **environment: str) -> str:
    """The page's blocks, small, in one shell; what they printed.

    Args:
        before: commands that make what the page takes to be there.
    """
    chosen = [block for block in blocks(Path(page)) if not block.note.startswith("not run")]
    assert chosen
    binaries = Path(sys.executable).parent
    ours = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "CROSSFAKE_OFFLINE": "1", **environment}
    script = "set -eu\n" + "\n".join([before, *(block.small for block in chosen)])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**os.environ, **ours}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{page}\n{script}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def draw_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        save_png(toyface(1000 + number, 48), folder / f"{number}.png")
    return folder


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each crossfake command in a block, from the command's name on."""
    heredoc = re.compile(r"<<'(\w+)'\n.*?^\1$", re.M | re.S)
    for line in heredoc.sub("", text).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\||;|\|", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError as error:
                raise AssertionError(f"{part!r} is no shell: {error}") from error
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if "-m" in words and words[words.index("-m") + 1].startswith(
                "crossfake."
            ):  # torchrun -m crossfake.synth
                rest = words[words.index("-m") + 1 :]
                yield [rest[0].rpartition(".")[2], *[word for word in rest[1:] if word != "--"]]
            elif words and words[0] in ("python", "python3") and len(words) > 2 and words[2] in _COMMANDS:
                yield words[2:]  # python family.py synth train …
            elif words and words[0] in _COMMANDS:
                yield words


def check_command(words: list[str]) -> None:
    """Every word that names a command or an option does so."""
    from crossfake.cli import main

    command: click.Command = main
    rest = [*_COMMANDS[words[0]][1:], *words[1:]]
    with click.Context(command, info_name="crossfake") as context:
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0])
            assert found, f"{' '.join(words)}: there is no command {rest[0]}"
            command, rest = found, rest[1:]
        known = {name for p in command.get_params(context) for name in (*p.opts, *p.secondary_opts)}
    for word in rest:
        if re.match(r"--?[a-zA-Z]", word):
            assert word.partition("=")[0] in known, f"{' '.join(words)}: there is no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_exist(page: Path) -> None:
    for block in blocks(page):
        for words in command_lines(block.text):
            check_command(words)


def test_an_option_that_is_gone_is_noticed() -> None:
    check_command(["synth", "generate", "--n", "5"])
    for wrong in (["synth", "generate", "--many", "5"], ["detect", "guess"], ["crossfake", "data", "prepar"]):
        with pytest.raises(AssertionError, match="there is no"):
            check_command(wrong)
    found = list(command_lines("X=1 torchrun --nproc-per-node=2 -m crossfake.synth -- train --data a # b\n"))
    assert found == [["synth", "train", "--data", "a"]]


def slug(heading: str) -> str:
    """The anchor that GitHub and mkdocs both give to a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text)).strip("-")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target} leads nowhere"
        if anchor and file.suffix == ".md":
            found = file.read_text()
            anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", found, re.M)}
            anchors |= set(re.findall(r"^::: (crossfake\S*)$", found, re.M))  # of docstrings
            assert anchor in anchors, f"{page}: {target} has no such heading"


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"([\w/-]+\.md)", (ROOT / "mkdocs.yml").read_text()))
    assert {str(page.relative_to("docs")) for page in PAGES if page.name != "README.md"} <= named


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    said = run_blocks("docs/tutorial.md", tmp_path, PHOTOS=str(draw_photos(tmp_path / "photos", 60)))
    assert "all numbers are those of the stored scores" in said
    assert "dcgan" in (tmp_path / "runs" / "table" / "results.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/howto/add-a-family.md", "docs/howto/add-a-detector.md"])
def test_examples_run(page: str, tmp_path: Path) -> None:
    for example in (DOCS / "examples").glob("*.py"):
        (tmp_path / example.name).write_text(example.read_text())
    run_blocks(page, tmp_path)


def draw_home(home: Path) -> None:
    """What a reader has: photos, fakes of two makers, and a picture that nobody knows."""
    for number, (name, count) in enumerate({"photos": 60, "known-fakes": 60, "new-fakes": 24}.items()):
        (home / name).mkdir()
        for k in range(count):
            image = toyface(1000 * (number + 1) + k, 48)
            if number:  # one maker leaves a grid, the other lines
                image[:: number + 1, :: 3 - number] //= 2
            save_png(image, home / name / f"{k}.png")
    save_png(toyface(9999, 48), home / "photo.png")
    for k in range(24):
        save_png(toyface(5000 + k, 16), home / "others" / "fakes" / f"{k}.png")


def _prepare(name: str, out: str, label: str, more: str = "") -> str:
    return f"crossfake data prepare ~/{name} --label {label} --size 16 --crop center --out {out} {more}\n"


_FACES, _KNOWN = _prepare("photos", "data/faces", "real"), _prepare("known-fakes", "data/known", "fake")
_UNSEEN = _prepare("new-fakes", "data/unseen", "fake", "--generator new --split 0/0/1")
_SHORT = "--steps 4 --batch 8 --eval-every 2"
_GAN = "synth train --data data/faces --family stylegan2 --kimg 0.1 --batch 8 --channels 16 --out runs/gan\n"
_PHOTO = "cp ~/photo.png photo.jpg\n"  # what a file is, its content says
# Pages whose blocks run in order, in one folder, and what is there before.
RUN = {
    "README.md": "",
    "docs/data.md": "mkdir ~/set && for n in ffhq celeba; do cp -r ~/photos ~/set/$n; done\n"
    "for n in stylegan2 sd; do cp -r ~/known-fakes ~/set/$n; done\n"
    + _prepare("photos", "data/a", "real") + _prepare("known-fakes", "data/b", "fake")
    + _prepare("new-fakes", "data/c", "fake") + "cp -r data/a data/photos && cp -r data/b data/fakes\n",
    "docs/detectors.md": _FACES + _KNOWN + _UNSEEN + _prepare("others/fakes", "data/own", "fake", "--generator own")
    + "detect train --real data/faces --fake data/known --with-synthetic data/own --model cnn "
    + f"{_SHORT} --out runs/other\n" + _PHOTO,
    "docs/generators.md": _FACES + _GAN + _PHOTO
    + "synth train --data data/faces --family autoencoder --kimg 0.1 --batch 8 --channels 16 --out runs/autoencoder\n",
    "docs/quality.md": _FACES + _GAN + "synth generate --n 30 --model runs/gan\n",
    "docs/experiments.md": _FACES + _KNOWN + _UNSEEN + "mv data/known data/known-fakes; mv data/unseen data/new-fakes\n"
    + _GAN + "synth generate --n 40 --model runs/gan --out runs/gan/generated-n50000-psi1-seed0\n",
    "docs/howto/own-photos.md": "cp -r ~/known-fakes ~/fakes; cp ~/photos/1.png one.png; cp ~/photos/2.png two.png\n"
    "printf 'file,group\none.png,anna\ntwo.png,ben\n' >people.csv\n",
    "docs/howto/faceforensics.md": "",
    "docs/howto/published-weights.md": "cp -r ~/new-fakes ~/midjourney\n",
    # the environment of a wheel has torchrun; this is what it calls
    "docs/howto/torchrun.md": _FACES + _KNOWN + 'torchrun() { python -m torch.distributed.run "$@"; }\n',
}  # a table  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run_in_order(page: str, tmp_path: Path) -> None:
    draw_home(tmp_path)
    folder = tmp_path / "here"
    folder.mkdir()
    if page == "docs/experiments.md":
        text = re.search(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
        assert text
        smaller = {
            "[cnn, resnet18]": "[cnn]",
            "[0, 1, 2]": "[0]",
            "steps: 1000, batch: 64": "steps: 4, batch: 8",
        }
        mine = text[1]
        for old, new in smaller.items():
            assert old in mine
            mine = mine.replace(old, new)
        (folder / "mine.yaml").write_text(mine)
    said = run_blocks(page, folder, RUN[page], HOME=str(tmp_path))
    if page in ("README.md", "docs/experiments.md"):
        assert "all numbers are those of the stored scores" in said


PUBLISHED = "docs/howto/published-detectors.md"


@pytest.mark.slow
def test_a_published_detector_runs(real_weights: Path, real_data: Path, tmp_path: Path) -> None:
    before = f"cp {real_weights}/mesonet/Meso4_DF.h5 .; mkdir photos\n"
    before += f"cp $(ls -d {real_data}/web-faces/real/* | head -n 3) photos\n"
    assert "3 judged" in run_blocks(PUBLISHED, tmp_path, before)


def test_every_block_is_run_or_says_why_not() -> None:
    """Records of measurements, which name the folders of the machine that made them, are no instructions."""
    tested = {
        "docs/tutorial.md",
        "docs/howto/add-a-family.md",
        "docs/howto/add-a-detector.md",
        "docs/howto/cluster.md",  # in tests/cluster, where there is one
        *RUN,
        PUBLISHED,
    }
    for page in PAGES:
        if page.is_relative_to("docs/results"):
            continue
        for block in blocks(page):
            assert str(page) in tested or block.note.startswith("not run: "), (
                f"{page}:{block.line} is not run"
            )
            assert block.note != "not run", f"{page}:{block.line} does not say why it is not run"


class _Loaded(html.parser.HTMLParser):
    """What a browser fetches to show a page, as far as its HTML says."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        named = ("src", "srcset", "data") if tag != "link" else ("href",)
        self.urls += [url for name in named if (url := given.get(name))]
        self.urls += re.findall(r"url\(([^)]*)\)", given.get("style") or "")


class _Shown(html.parser.HTMLParser):
    """What a browser shows: prose, and code by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.prose, self.code, self._inside = "", "", []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "code", "pre"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.prose += data
        elif self._inside[-1] not in ("script", "style"):
            self.code += data


_LEFT = {  # of markup that was not understood
    "a snippet": re.compile(r"-+8\s*<"),
    "a template": re.compile(r"\{\{|\}\}|\{%"),
    "a fence": re.compile(r"```|~~~"),
    "bold": re.compile(r"\*\*\w|\w\*\*"),
    "a code span": re.compile(r"`"),
    "a link": re.compile(r"\]\(|\]\["),
    "attributes": re.compile(r"\{ ?[:.#]\w"),
    "an admonition": re.compile(r"^\s*(!!!|\?\?\?) ", re.M),
    "a table": re.compile(r"^\s*\|.*\|\s*$", re.M),
    "a heading": re.compile(r"^#+ ", re.M),
    "an object": re.compile(r":::"),
    "a comment": re.compile(r"<!--"),
}


def leftovers(page: str) -> list[str]:
    """Markup that a reader of the HTML would see; in code only that of snippets, since all else may be meant."""
    shown = _Shown()
    shown.feed(page)
    found = [f"{what}: {m[0]!r}" for what, mark in _LEFT.items() for m in mark.finditer(shown.prose)]
    return found + [f"a snippet in code: {m[0]!r}" for m in _LEFT["a snippet"].finditer(shown.code)]


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("<p>Plain, with <b>bold</b> and <code>a **kwargs {{x}}</code>.</p><script>`{{`</script>", 0),
        ('<pre><code>--8 < --"examples/x.py"</code></pre>', 1),
        ("<p>--8<-- 'x.py'</p>", 1),
        ("<p>**bold**</p>", 2),
        ("<p>```python</p>", 4),
        ("<p>{{ page.title }} [a](b.md)</p>", 3),
        ("<p>{ .pixels width=548 }</p>", 1),
    ],
)
def test_leftovers_are_noticed(page: str, count: int) -> None:
    assert len(leftovers(page)) == count


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_no_markup_is_left_in_the_site(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    assert {
        str(page.relative_to(site)): found for page in pages if (found := leftovers(page.read_text()))
    } == {}


@pytest.mark.parametrize("example", sorted((DOCS / "examples").glob("*.py")), ids=lambda file: file.stem)
def test_an_example_is_shown_as_it_is(example: Path, site: Path) -> None:
    shown = _Shown()
    for page in (site / "howto").glob("*.html"):
        shown.feed(page.read_text())
    assert example.read_text().strip() in shown.code


def test_the_formatter_leaves_pages_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('```python\n--8<-- "x.py"\n```\n')
    command = [sys.executable, "-m", "ruff", "format", "--config", str(ROOT / "pyproject.toml"), "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert "--8<--" in page.read_text()


def test_the_site_asks_for_nothing_from_outside(site: Path) -> None:
    assert (site / "tutorial.html").exists() and (site / "search").is_dir()
    assert "--with-synthetic" in (site / "reference" / "commands" / "detect.html").read_text()
    for page in site.rglob("*.html"):
        loaded = _Loaded()
        loaded.feed(page.read_text())
        assert not [url for url in loaded.urls if re.match(r"\s*['\"]?(https?:)?//", url)], page
    for style in site.rglob("*.css"):
        outside = re.findall(r"(?:url\(|@import )\s*['\"]?(?:https?:)?//[^)'\"]*", style.read_text())
        assert not outside, style
