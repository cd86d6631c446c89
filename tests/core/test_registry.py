import sys
from pathlib import Path

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


def test_a_module_is_imported_when_its_name_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    things: Registry[int] = Registry("thing", {"spoon": "made_of_wood", "fork": "made_of_steel"})
    (tmp_path / "made_of_wood.py").write_text("import sys; sys.things.register('spoon')(1)")
    monkeypatch.setattr(sys, "things", things, raising=False)
    things.register("knife")(3)
    assert things.names() == ["fork", "knife", "spoon"] and "fork" in things
    assert "made_of_wood" not in sys.modules
    with pytest.raises(ValueError, match="'spoon' is registered twice"):
        things.register("spoon")(2)
    assert things.get("spoon") == 1


@pytest.mark.parametrize(
    ("asked", "answer"), [("stylgan2", "did you mean 'stylegan2'"), ("zzz", "choose one of")]
)
def test_unknown_name_is_answered_helpfully(asked: str, answer: str) -> None:
    things: Registry[int] = Registry("family")
    things.register("stylegan2")(1)
    with pytest.raises(UserError, match=answer):
        things.get(asked)
