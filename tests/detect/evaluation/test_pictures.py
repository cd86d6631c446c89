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


@pytest.mark.parametrize("threshold", [0.03, 0.5, 0.97])
def test_no_text_lies_over_another_or_over_a_curve(
    threshold: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Legends lie below the axes, and all of a picture is within its own width."""
    from matplotlib.text import Text

    kept = []

    class Kept(pictures.Figure):  # type: ignore[misc, name-defined]
        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, **settings)
            kept.append(self)

    monkeypatch.setattr(pictures, "Figure", Kept)
    parts = {"all fakes": _part(0)} | {f"a generator of a long name, {k}": _part(k, k / 20) for k in range(8)}
    pictures.roc_picture(parts, tmp_path / "roc.png", {"tpr_at_1%_fpr": (0.1, 0.4)})
    pictures.pr_picture(parts, tmp_path / "pr.png")
    pictures.det_picture(parts, tmp_path / "det.png")
    pictures.calibration_picture(*_part(0), threshold, tmp_path / "calibration.png")
    assert len(kept) == 4
    for figure in kept:
        figure.draw_without_rendering()
        hidden = {
            label
            for axes in figure.axes
            for axis in (axes.xaxis, axes.yaxis)
            for at, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
            if not min(axis.get_view_interval()) <= at <= max(axis.get_view_interval())
        }
        texts = [
            t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden
        ]
        boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
        for number, (one, a) in enumerate(boxes):
            assert a.x0 >= -1 and a.x1 <= figure.bbox.x1 + 1, one
            for other, b in boxes[number + 1 :]:
                across, down = (
                    min(a.x1, b.x1) - max(a.x0, b.x0),
                    min(a.y1, b.y1) - max(a.y0, b.y0),
                )
                assert across < 1 or down < 1, f"{one!r} over {other!r}"
        legend = figure.legends[0].get_window_extent()
        assert all(legend.y1 <= axes.get_window_extent().y0 for axes in figure.axes)
        assert not any(axes.get_legend() for axes in figure.axes)
