import pytest

from crossfake.errors import UserError
from crossfake.seeds import parse_seeds


def test_seeds_are_numbers_and_ranges() -> None:
    assert parse_seeds("5") == [5]
    assert parse_seeds("4294967295") == [2**32 - 1]
    assert parse_seeds("3 - 5, 0,9-9") == [3, 4, 5, 0, 9]


@pytest.mark.parametrize(
    "wrong", ["", "a", "5-3", "-1", "1-", "1,,2", "1.5", "1e3", "\u0663", "1-" + "9" * 20]
)
def test_what_is_no_list(wrong: str) -> None:
    with pytest.raises(UserError, match="no list of seeds"):
        parse_seeds(wrong)


def test_only_so_many() -> None:
    assert len(parse_seeds("1-4,8-11", most=8)) == 8
    for text, most in (("1-999999999", 10_000), ("1-4,8-12", 8)):
        with pytest.raises(UserError, match="too many"):
            parse_seeds(text, most)
