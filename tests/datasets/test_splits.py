import pytest

from crossfake.datasets.splits import Fractions
from crossfake.errors import UserError


def test_shares_come_out_as_asked() -> None:
    fractions = Fractions.parse("0.7/0.2/0.1")
    parts = [fractions.split_of(f"group {n}") for n in range(5000)]
    shares = [parts.count(name) / 5000 for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_a_group_always_falls_into_the_same_split() -> None:
    names = [f"person {n}" for n in range(50)]
    first, again = (Fractions.parse("0.5/0.25/0.25") for _ in range(2))
    assert [first.split_of(n) for n in names] == [again.split_of(n) for n in reversed(names)][::-1]
    assert [Fractions.parse("0.5/0.25/0.25", seed=1).split_of(n) for n in names] != [
        first.split_of(n) for n in names
    ]


def test_a_share_of_nothing_stays_empty() -> None:
    assert {Fractions.parse("0/0/1").split_of(str(n)) for n in range(200)} == {"test"}
    assert {Fractions.parse("1/0/0").split_of(str(n)) for n in range(200)} == {"train"}


@pytest.mark.parametrize("text", ["", "0.8", "0.8/0.2", "0.8/0.1/0.2", "a/b/c", "-1/1/1", "nan/0/1"])
def test_anything_but_three_shares_of_one_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--split 0.8/0.1/0.1"):
        Fractions.parse(text)
