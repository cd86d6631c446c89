"""Published detectors give here what their authors' code gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import Detector, load
from crossfake.detect.importing.importer import build, import_detector
from crossfake.detect.importing.table import load_table


def _vectors(weights: Path, name: str) -> Any:
    file = weights.parent / "vectors" / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"needs {file.name} beside the weights")
    return np.load(file)


def by_rule(names: list[Any]) -> dict[str, torch.Tensor]:
    """The weights of the reference: made by a rule, not trained."""
    made, number = {}, 0
    for name, shape in names:
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(0)
            continue
        flat = np.arange(int(np.prod(shape)))
        s = np.sin(0.7 * (flat % 1009) + 1.3 * number)
        if len(shape) > 1:
            s = s * 1.6 / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var"):
            s = 1 + 0.2 * s
        elif name.endswith(("running_mean", "bias")):
            s = 0.1 * s
        else:
            s = 1 + 0.1 * s
        made[name] = torch.from_numpy(s.reshape(shape)).float()
        number += 1
    return made


@pytest.mark.parametrize("name", ["Meso4_DF", "Meso4_F2F", "MesoInception_DF", "MesoInception_F2F"])
def test_mesonet_is_keras(name: str, real_weights: Path, tmp_path: Path) -> None:
    vectors = _vectors(real_weights, "mesonet")
    import_detector(real_weights / "mesonet" / f"{name}.h5", "mesonet", tmp_path / "m")
    found = load(tmp_path / "m", device="cpu").score(list(vectors["x"]))
    np.testing.assert_allclose(1 - found, vectors[f"{name}_p_real"], atol=1e-5)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_npr_is_the_authors(kind: str, real_weights: Path, tmp_path: Path) -> None:
    vectors = _vectors(real_weights, "npr_official")
    state, file = by_rule(json.loads(vectors["facts_json"].tobytes())["names"]), tmp_path / f"NPR.{kind}"
    save_file(state, file) if kind == "safetensors" else torch.save(state, file)
    detector = load(import_detector(file, "npr", tmp_path / "m"), device="cpu")
    found = _logits(detector, vectors["x"])
    np.testing.assert_allclose(found, vectors["logits"][:, 0], rtol=1e-4)


def test_xception_is_deepfakebenchs(real_weights: Path, tmp_path: Path) -> None:
    vectors = _vectors(real_weights, "deepfakebench_xception")
    state = by_rule(json.loads(vectors["facts_json"].tobytes())["names"])
    torch.save(state, tmp_path / "xception_best.pth")
    detector = load(
        import_detector(tmp_path / "xception_best.pth", "deepfakebench/xception", tmp_path / "m"),
        device="cpu",
    )
    logits = vectors["logits"]
    np.testing.assert_allclose(_logits(detector, vectors["x"]), logits[:, 1] - logits[:, 0], atol=1e-4)


def _logits(detector: Detector, images: Pixels) -> Any:
    """Of images as they are, whatever resize comes before the network."""
    with torch.inference_mode():
        return detector.network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()


def test_a_network_that_is_built_is_the_bundles(real_weights: Path, tmp_path: Path) -> None:
    vectors = _vectors(real_weights, "npr_official")
    state = by_rule(json.loads(vectors["facts_json"].tobytes())["names"])
    model = build(load_table()["npr"], state, Path("NPR.pth"))
    with torch.inference_mode():
        found = model(torch.from_numpy(vectors["x"]).permute(0, 3, 1, 2).float() / 255)
    np.testing.assert_allclose(found.numpy(), vectors["logits"][:, 0], rtol=1e-4)
