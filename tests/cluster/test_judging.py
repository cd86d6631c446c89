"""What a Ray cluster measures is what is measured here."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import timm
import torch

from crossfake.datasets import fingerprints, leaks
from crossfake.datasets.audit.audit import audit
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.settings import SplitSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.fixtures import write_face
from crossfake.detect.bundle import bundle
from crossfake.detect.evaluation.evaluate import evaluate as detect_evaluate
from crossfake.detect.prediction.predict import predict
from crossfake.detect.settings import EvaluateSettings, PredictSettings
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.synth.quality.evaluate import evaluate as synth_evaluate
from crossfake.synth.settings import EvaluateSettings as QualitySettings


def test_scores_are_the_same(
    detector: Path, data: tuple[Path, Path], stored: ExecutorSettings, tmp_path: Path
) -> None:
    asked = partial(EvaluateSettings, detector, data, split="all", bootstrap=0, force=True, device="cpu")
    found = [
        detect_evaluate(asked(out=tmp_path / name), where)
        for name, where in (("here", ExecutorSettings()), ("ray", stored))
    ]
    scores = [(tmp_path / name / "scores.csv").read_text() for name in ("here", "ray")]
    assert scores[0] == scores[1] and found[0]["overall"] == found[1]["overall"]


def test_verdicts_are_the_same(detector: Path, ray: ExecutorSettings, tmp_path: Path) -> None:
    for number in range(40):
        write_face(Path("photos") / f"{number:02d}.png", number)
    (tmp_path / "photos" / "damaged.png").write_bytes(b"no picture")
    judge = bundle.load(detector, "cpu")
    here = [each.as_dict() for each in predict(["photos"], judge)]
    assert here == [each.as_dict() for each in predict(["photos"], judge, where=ray, device="cpu")]
    assert len(here) == 41 and sum(bool(each["problem"]) for each in here) == 1
    with pytest.raises(UserError, match="Ray's workers draw no verdicts: leave --annotate out"):
        predict(["photos"], judge, PredictSettings(annotate=tmp_path / "drawn"), ray)


def test_figures_are_the_same(data: tuple[Path, Path], stored: ExecutorSettings, tmp_path: Path) -> None:
    weights = tmp_path / "vit.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), weights)
    asked = partial(
        QualitySettings,
        *data,
        metrics=("fd", "spectrum"),
        features=("timm:test_vit",),
        weights=(weights,),
        real_split="all",
        device="cpu",
        seed=1,
    )
    found = []
    for name, where in (("here", ExecutorSettings()), ("ray", stored)):
        with pytest.MonkeyPatch.context() as patch:  # what is measured of the reals is kept
            patch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))
            found.append(synth_evaluate(asked(out=tmp_path / f"{name}.json"), where)["details"])
    assert found[0] == found[1] and found[0]


def test_splits_and_audits_are_the_same(
    data: tuple[Path, Path], stored: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "_ROWS", 50)
    shutil.copytree(data[0], tmp_path / "one")
    shutil.copytree(data[0], tmp_path / "other")
    for name, where in (("one", ExecutorSettings()), ("other", stored)):
        leaks.split(SplitSettings((tmp_path / name,), redeal=True, workers=1), where)
    assert ShardSet(tmp_path / "one").hash == ShardSet(tmp_path / "other").hash
    asked = AuditSettings((str(data[0]),), (str(data[1]),), limit=30, workers=1)
    assert audit(asked).table() == audit(asked, stored).table()
