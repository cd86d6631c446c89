import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest

from crossfake.bounds import Bounds, Seed, Share, check_bounds, numbers_of
from crossfake.errors import UserError


@dataclass(frozen=True)
class Settings:
    steps: Annotated[int, Bounds(1, 100)] = 1
    batch: Annotated[int, Bounds(2, 8, zero=True)] = 0
    rate: Annotated[float, Bounds(0, 1, above=True, below=True)] = 0.5
    share: Share | None = None
    shares: tuple[Share, ...] = ()
    seed: Seed = 0
    any_number: float = 0.0
    name: str = ""
    on: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)


def test_the_numbers_of_a_dataclass_are_found() -> None:
    found = numbers_of(Settings)
    assert list(found) == ["steps", "batch", "rate", "share", "shares", "seed", "any_number"]
    assert found["share"].optional and not found["share"].several
    assert found["shares"].several and found["shares"].bounds == Bounds(0, 1)
    assert found["any_number"].bounds is None


@pytest.mark.parametrize(
    "good",
    [
        {"steps": 100},
        {"batch": 0},
        {"batch": 2},
        {"batch": 8},
        {"rate": 0.999},
        {"share": None},
        {"share": 1},
        {"shares": (0, 0.5, 1)},
        {"seed": 2**31 - 1},
        {"any_number": -1e30},
        {"steps": np.int64(3)},
        {"share": np.float32(0.5)},
    ],
)
def test_what_is_within_is_taken(good: dict[str, object]) -> None:
    assert getattr(Settings(**good), next(iter(good))) == next(iter(good.values()))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"steps": 0}, "--steps 0 is out of range: give a whole number from 1 to 100"),
        ({"steps": 10**30}, f"--steps {10**30} is out of range"),
        ({"batch": 1}, "--batch 1 is out of range: give 0, or a whole number from 2 to 8"),
        ({"rate": 0}, "--rate 0 is out of range: give a number above 0, below 1"),
        ({"rate": 1.0}, "--rate 1.0 is out of range"),
        ({"rate": math.nan}, "--rate nan is out of range"),
        ({"share": math.inf}, "--share inf is out of range"),
        ({"shares": (0.5, -1)}, "--shares -1 is out of range"),
        ({"any_number": math.nan}, "--any-number nan is out of range: give a finite number"),
        ({"any_number": -math.inf}, "--any-number -inf is out of range"),
        ({"steps": "many"}, "--steps is 'many': give a whole number"),
        ({"steps": 1.5}, "--steps is 1.5: give a whole number"),
        ({"steps": True}, "--steps is True"),
        ({"steps": None}, "--steps is None"),
        ({"rate": "1e-3"}, "--rate is '1e-3'"),
        ({"shares": "0.5"}, "--shares is '0'"),
        ({"shares": 0.5}, "--shares is 0.5: give a list of numbers"),
    ],
)
def test_what_is_not_is_one_line(bad: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as error:
        Settings(**bad)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_names_are_those_of_the_fields_without_a_prefix() -> None:
    with pytest.raises(UserError, match=r"^any_number nan is out of range"):
        check_bounds(_bare(any_number=math.nan), prefix="")


def _bare(**values: object) -> Settings:
    made = Settings()
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
