from pathlib import Path

import pytest
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import load
from crossfake.detect.prediction import predict
from crossfake.errors import UserError


def test_a_folder_is_judged_in_order_and_broken_files_are_listed(
    trained: Path, real: Path, fake: Path, tmp_path: Path
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    Image.fromarray(ShardSet(real).read(110)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.jpg").write_text("not a picture")
    Image.fromarray(ShardSet(fake).read(110)).save(tmp_path / "in" / "deep" / "c.png")
    (tmp_path / "in" / "notes.txt").write_text("ignored")
    detector = load(trained, device="cpu")
    result = predict([tmp_path / "in"], detector)
    assert [Path(p.path).name for p in result] == ["a.png", "b.jpg", "c.png"]
    assert [p.verdict for p in result] == ["real", "not judged", "fake"]
    assert result[1].score is None and "cannot be read" in result[1].reason
    assert result[2].score == detector(tmp_path / "in" / "deep" / "c.png")


def test_nothing_to_judge_is_one_line(trained: Path, tmp_path: Path) -> None:
    detector = load(trained, device="cpu")
    with pytest.raises(UserError, match="no image to judge"):
        predict([tmp_path], detector)
    with pytest.raises(UserError, match="is not there"):
        predict([tmp_path / "none.png"], detector)
