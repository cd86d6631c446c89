import pytest

from crossfake.errors import UserError
from crossfake.registry import Registry


def test_registers_under_own_or_given_name() -> None:
    things: Registry[object] = Registry("thing")

    @things.register()
    def spoon() -> None: ...

    things.register("fork")(1)
    assert things.names() == ["fork", "spoon"]
    assert things.get("spoon") is spoon
    assert "fork" in things and "knife" not in things


def test_second_registration_is_a_bug() -> None:
    things: Registry[int] = Registry("thing")
    things.register("a")(1)
    with pytest.raises(ValueError, match="'a' is registered twice"):
        things.register("a")(2)


@pytest.mark.parametrize(
    ("asked", "answer"), [("stylgan2", "did you mean 'stylegan2'"), ("zzz", "choose one of")]
)
def test_unknown_name_is_answered_helpfully(asked: str, answer: str) -> None:
    things: Registry[int] = Registry("family")
    things.register("stylegan2")(1)
    with pytest.raises(UserError, match=answer):
        things.get(asked)
