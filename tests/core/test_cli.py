import click
import pytest
from click.testing import CliRunner

from crossfake.cli import command_group, main
from crossfake.errors import UserError

group = command_group("thing", "A thing.")


@group.command()
def fail() -> None:
    raise UserError("the plate is empty", mend="cook something")


def test_a_user_error_is_one_line_with_exit_code_2() -> None:
    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == 2
    assert result.output == "error: the plate is empty: cook something\n"


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
