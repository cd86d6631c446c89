from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner

from crossfake.bounds import Bounds, check_bounds
from crossfake.cli import ManyValues
from crossfake.errors import UserError
from crossfake.options import Option, There, attributes, help_of, options


@dataclass(frozen=True)
class Settings:
    """How to bake. Not an attribute: this.

    Attributes:
        flour: bags of flour; several may follow. Any
            kind will do.
        out: where it goes [default: the table]. It is cleared.
        heat, minutes: as the oven has them.
        kind: ``rye``: dark; ``wheat``: light.
        crust: which crust [default: the kind's].
        sieve: sieve the flour.
        salt: add salt, or leave it out.
        hidden: nobody sees it.

    Raises:
        UserError: too hot.
    """

    flour: tuple[There, ...]
    out: Path
    heat: Annotated[int, Bounds(50, 250)] = 200
    minutes: float | None = None
    kind: Literal["rye", "wheat"] = "rye"
    crust: Literal["thin", "thick"] | None = None
    sieve: bool = False
    salt: Annotated[bool, Option("--salt/--no-salt")] = True
    hidden: Annotated[str, Option("--secret", metavar="WORD", envvar="BAKER", hidden=True)] = ""
    inner: int = 0

    def __post_init__(self) -> None:
        check_bounds(self)


made: dict[str, Any] = {}


@click.command(cls=ManyValues, context_settings={"show_default": True})
@options(Settings)
def bake(**chosen: Any) -> None:
    made.clear()
    made.update(chosen)


def _bake(*args: str) -> dict[str, Any]:
    result = CliRunner().invoke(bake, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(made)


def test_the_defaults_are_those_of_the_fields() -> None:
    chosen = _bake()
    assert chosen == {
        "flour": (),
        "out": None,
        "heat": 200,
        "minutes": None,
        "kind": "rye",
        "crust": None,
        "sieve": False,
        "salt": True,
        "hidden": "",
    }
    assert Settings(**{**chosen, "out": Path("x")}) == Settings((), Path("x"))


def test_values_come_as_the_fields_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    monkeypatch.setenv("BAKER", "joe")
    chosen = _bake(
        *(
            "--flour",
            str(tmp_path / "a"),
            str(tmp_path / "b"),
            "--out",
            "o",
            "--heat",
            "100",
            "--minutes",
            "1.5",
        ),
        *("--kind", "wheat", "--crust", "thin", "--sieve", "--no-salt"),
    )
    assert chosen == {
        "flour": (tmp_path / "a", tmp_path / "b"),
        "out": Path("o"),
        "heat": 100,
        "minutes": 1.5,
        "kind": "wheat",
        "crust": "thin",
        "sieve": True,
        "salt": False,
        "hidden": "joe",
    }


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--heat", "hot"), "'hot' is not a valid integer"),
        (("--heat", "10"), "error: --heat 10 is out of range: give a whole number from 50 to 250\n"),
        (("--heat", "nan"), "'nan' is not a valid integer"),
        (("--minutes", "nan"), "error: --minutes nan is out of range: give a finite number\n"),
        (("--kind", "corn"), "'corn' is not one of 'rye', 'wheat'"),
        (("--inner", "1"), "No such option"),
    ],
)
def test_what_is_no_value_is_refused(args: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(bake, args)
    assert result.exit_code == 2 and said in result.output


def test_a_path_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is not there: check the path"):
        _bake("--flour", str(tmp_path / "none"))


def test_ranges_and_choices_are_checked_when_settings_are_made() -> None:
    with pytest.raises(UserError, match="--heat 10 is out of range: give a whole number from 50 to 250"):
        Settings((), Path(), heat=10)
    with pytest.raises(UserError, match="there is no kind 'corn': choose one of rye, wheat"):
        Settings((), Path(), kind="corn")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="there is no crust 'soft': choose one of thin, thick$"):
        Settings((), Path(), crust="soft")  # type: ignore[arg-type]


def test_the_help_is_the_first_sentence_of_the_documentation() -> None:
    text = CliRunner().invoke(bake, ["--help"]).output
    shown = " ".join(text.split())
    assert (
        "--flour PATH Bags of flour; several may follow. --out PATH Where it goes. [default: the table]"
        in shown
    )
    assert (
        "--heat INTEGER As the oven has them. [default: 200] --minutes FLOAT As the oven has them. --kind"
        in shown
    )
    assert "rye: dark; wheat: light. [default: rye]" in shown
    assert "Which crust. [default: the kind's]" in shown
    assert "[default: salt]" in shown and "secret" not in shown and "Any kind" not in shown


def test_some_fields_some_changed() -> None:
    @click.command()
    @options(Settings, "kind", "heat", heat={"default": 50, "help": "Cold."})
    def cool(**chosen: Any) -> None: ...

    kind, heat = cool.params
    assert (kind.name, heat.name, heat.default) == ("kind", "heat", 50)
    assert isinstance(heat, click.Option) and heat.help == "Cold."

    @click.command()
    @options(Settings, without=("flour", "out"))
    def rest(**chosen: Any) -> None: ...

    assert [option.name for option in rest.params][:2] == ["heat", "minutes"]
    with pytest.raises(KeyError):
        options(Settings, "inner")(rest)  # it is not documented, so it is no option


def test_attributes_are_read_to_the_end_of_their_section() -> None:
    assert attributes(Settings)["flour"] == "bags of flour; several may follow. Any kind will do."
    assert attributes(Settings)["minutes"] == "as the oven has them."
    assert "Raises" not in " ".join(attributes(Settings).values())
    assert attributes(int) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a b. C d.", "A b."),
        ("a 0.5 of b", "A 0.5 of b."),
        ("``auto``, cpu or :class:`~x.y.Z`. More", "auto, cpu or Z."),
        ("what it is [default: a; b]. More", "What it is.  [default: a; b]"),
    ],
)
def test_a_sentence_as_the_command_line_shows_it(text: str, said: str) -> None:
    assert help_of(text) == said
