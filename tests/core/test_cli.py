import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from crossfake.cli import NEWEST, SHARDS, ManyValues, command_group, main
from crossfake.errors import UserError

group = command_group("thing", "A thing.")


@group.command()
def fail() -> None:
    raise UserError("the plate is empty", hint="cook something")


def test_a_user_error_is_one_line_with_exit_code_2() -> None:
    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == 2
    assert result.output == "error: the plate is empty: cook something\n"


@group.command()
@click.option("--data", type=SHARDS)
@click.option("--n", type=int)
def take(data: Path, n: int) -> None:
    click.echo(n)


def test_the_first_of_two_paths_is_not_forgotten_in_silence(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.jsonl").touch()
    paths = [part for name in "ab" for part in ("--data", str(tmp_path / name))]
    result = CliRunner().invoke(group, ["take", *paths])
    assert result.exit_code == 2
    assert result.output == "error: --data is given twice, and takes one path: give it once\n"
    assert CliRunner().invoke(group, ["take", "--n", "1", "--n", "2"]).output == "2\n"  # as shells have it


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["thing", "--debug", "fail"])
    result = CliRunner().invoke(group, ["--debug", "fail"])
    assert isinstance(result.exception, UserError)


@pytest.mark.parametrize("part", ["synth", "detect", "data", "experiment", "demo", "doctor"])
def test_every_part_answers_help(part: str) -> None:
    result = CliRunner().invoke(main, [part, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_the_umbrella_lists_its_parts_without_importing_them() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert all(part in result.output for part in main.list_commands(click.Context(main)))


def test_doctor_names_missing_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("CROSSFAKE_WEIGHTS", str(tmp_path_factory.mktemp("none")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("none")))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "missing: pt_inception-2015-12-05-6726825d.pth" in result.output
    assert "device" in result.output


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "big"), "the disk is full (big): free some space"),
        (RuntimeError("HDF5: No space left on device"), "the disk is full ("),
        (OSError(5, "Input/output error"), ""),
    ],
)
def test_a_full_disk_is_one_line_and_other_faults_are_not(error: Exception, line: str) -> None:
    writing = command_group("writing", "Writes.")

    @writing.command()
    def work() -> None:
        raise error

    result = CliRunner().invoke(writing, ["work"])
    assert (result.exit_code, line in result.output) == (2, True) if line else result.exception is error


def test_an_option_of_many_values_may_be_repeated_side_by_side() -> None:
    import click

    from crossfake.cli import ManyValues

    @click.command(cls=ManyValues)
    @click.option("--real", multiple=True)
    def command(real: tuple[str, ...]) -> None:
        click.echo(" ".join(real))

    for words in (["--real", "a", "--real", "b"], ["--real", "a", "b"], ["--real=a", "--real=b"]):
        assert CliRunner().invoke(command, words).output == "a b\n"


WRONG = [
    "detect train --real nowhere --fake nowhere",
    "detect train --out nowhere --resume",
    "detect train --match-steps nowhere",
    "detect evaluate --bundle nowhere --data nowhere",
    "detect predict nowhere.jpg",
    "detect explain nowhere.jpg",
    "detect calibrate --real nowhere --fake nowhere",
    "detect tune --real nowhere",
    "detect tune --out nowhere --resume",
    "detect ensemble nowhere",
    "detect export --bundle nowhere",
    "detect serve --bundle nowhere",
    "synth train --data nowhere",
    "synth train --out nowhere --resume",
    "synth generate --n 5 --model nowhere",
    "synth generate --n 5 --photos nowhere",
    "synth evaluate --real nowhere --fake nowhere",
    "synth grid --model nowhere",
    "synth project nowhere.jpg",
    "experiment run nowhere",
    "experiment run wrong.yaml",
    "experiment report nowhere",
    "experiment verify nowhere",
    "data split nowhere",
    "data prepare nowhere --out x",
]


def test_a_wrong_path_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    """In a process of its own: here everything may have been imported already."""
    (tmp_path / "wrong.yaml").write_text(
        "{name: x, protocol: cross-generator, detectors: [cnn], real: [nowhere], generators: []}"
    )
    script = f"""
import sys
from crossfake.cli import main
for words in {[line.split() for line in WRONG]!r}:
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 2, words
    assert "torch" not in sys.modules, words
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == len(WRONG) and all(line.startswith("error: ") for line in told), done.stderr
    assert all("nowhere" in line for line in told), done.stderr


def test_the_early_answer_is_that_of_the_function(tmp_path: Path) -> None:
    from crossfake.datasets.shards import ShardSet
    from crossfake.detect.bundle.bundle import load
    from crossfake.detect.settings import BUNDLE
    from crossfake.synth.sampling.models import load_model
    from crossfake.synth.settings import MODEL

    for look, function in ((SHARDS.check, ShardSet), (BUNDLE.check, load), (MODEL.check, load_model)):
        with pytest.raises(UserError) as early:
            look(tmp_path)
        with pytest.raises(UserError) as late:
            function(tmp_path)
        assert str(early.value) == str(late.value)


@click.command(cls=ManyValues)
@click.argument("words", nargs=-1)
@click.option("--real", multiple=True)
@click.option("--with-synthetic", multiple=True)
@click.option("--size", type=int, default=0)
def many(words: tuple[str, ...], real: tuple[str, ...], with_synthetic: tuple[str, ...], size: int) -> None:
    click.echo(repr((words, real, with_synthetic, size)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--real A --real B", ((), ("A", "B"), (), 0)),
        ("--real A B", ((), ("A", "B"), (), 0)),
        ("--real A B --size 3 --real C", ((), ("A", "B", "C"), (), 3)),
        ("--real=A B --real=C", ((), ("A", "B", "C"), (), 0)),
        ("w --real A --with-synthetic", (("w",), ("A",), (NEWEST,), 0)),
        ("w --with-synthetic --real A", (("w",), ("A",), (NEWEST,), 0)),
        ("--with-synthetic X Y", ((), (), ("X", "Y"), 0)),
        ("--real A -- w --real", (("w", "--real"), ("A",), (), 0)),
        ("u v --size 1", (("u", "v"), (), (), 1)),
        ("--size 1 u v", (("u", "v"), (), (), 1)),
    ],
)
def test_many_values_may_follow_or_repeat_the_option(line: str, expected: tuple[object, ...]) -> None:
    result = CliRunner().invoke(many, line.split())
    assert result.output == f"{expected!r}\n"


def test_an_option_without_its_values_is_an_error() -> None:
    result = CliRunner().invoke(many, ["--real"])
    assert result.exit_code == 2 and "requires an argument" in result.output
