from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfake.detect.evaluation import pictures
from crossfake.errors import UserError


def _part(seed: int, shift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    return labels, np.clip(rng.normal(0.35 + shift * labels, 0.2), 0, 1)


def test_the_hardest_parts_are_shown_beside_the_first() -> None:
    parts = {"all fakes": _part(0)} | {f"g{k}": _part(k, shift=k / 20) for k in range(10)}
    shown, left_out = pictures.hardest(parts)
    assert list(shown) == ["all fakes", *(f"g{k}" for k in range(6))] and left_out == 4


def test_every_picture_is_drawn(tmp_path: Path) -> None:
    parts = {"all fakes": _part(0), "a generator of a name that is far too long": _part(1), "g": _part(2)}
    pictures.roc_picture(parts, tmp_path / "roc.png", {"tpr_at_1%_fpr": (0.1, 0.4)})
    pictures.pr_picture(parts, tmp_path / "pr.png")
    pictures.det_picture(parts, tmp_path / "det.png")
    pictures.calibration_picture(*_part(0), 0.4, tmp_path / "calibration.png")
    pictures.confusion_picture([[20, 10], [0, 30]], 0.4, tmp_path / "confusion.png")
    for file in tmp_path.iterdir():
        with Image.open(file) as image:
            assert min(image.size) > 400 and len(np.unique(np.asarray(image.convert("L")))) > 20, file


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scores", [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.5] * 4])
def test_perfect_inverted_and_constant_scores_can_be_drawn(scores: list[float], tmp_path: Path) -> None:
    part = (np.array([0, 0, 1, 1]), np.array(scores))
    draw = (pictures.det_picture, pictures.roc_picture, pictures.pr_picture)[int(2 * scores[0])]
    draw({"g": part}, tmp_path / "a.png")
    pictures.calibration_picture(*part, 1.2, tmp_path / "c.png")


def test_a_folder_that_is_not_there_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        pictures.confusion_picture([[1, 0], [0, 1]], 0.5, tmp_path / "none" / "x.png")
