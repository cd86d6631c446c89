import dataclasses

import pytest

from crossfake.errors import UserError
from crossfake.serve.intake.limits import Limits


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_every_limit_is_one(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_bytes_of_each_kind() -> None:
    limits = Limits(bytes_image=1, bytes_video=2, bytes_archive=3)
    assert [limits.bytes_of(kind) for kind in ("image", "video", "archive")] == [1, 2, 3]
