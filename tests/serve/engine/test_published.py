"""Published detectors on the page: every picture and every reason is of what their networks see."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from crossfake.detect.importing.importer import import_detector
from crossfake.detect.models import create_model
from crossfake.serve.engine.analysis import Analyser

TABLE = """
cropped: &base
  paper: none
  licence: none
  weights: none
  trained_on: [nothing]
  sees: {looks_at: picture, resize: 40, crop: 32}
  model: published
  options: {architecture: test_resnet}
squeezed: {<<: *base, sees: {looks_at: picture, resize: 32, squeeze: true}}
free: {<<: *base, sees: {looks_at: picture}}
"""
SEEN = {"cropped": (32, 32), "squeezed": (32, 32), "free": (90, 70)}


@pytest.mark.parametrize("name", list(SEEN))
def test_a_picture_with_its_reasons(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model("published", options={"architecture": "test_resnet"})
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "t.yaml").write_text(TABLE)
    bundle = import_detector(tmp_path / "w.safetensors", name, tmp_path / name, tmp_path / "t.yaml")
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    analyser = Analyser([bundle], device="cpu", alike=True)
    (face,) = analyser.analyse(tmp_path / "photo.png").faces
    assert face.heat is not None and face.heatmap is not None
    assert face.heat.shape == face.heatmap.shape[:2] == SEEN[name]
    assert face.spectrum is not None
    assert analyser.about()[0].sees == "the whole picture"
