"""Official StyleGAN3 pickles, T and R, at tiny size."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossfake.errors import UserError
from crossfake.synth.families.stylegan2 import Discriminator
from crossfake.synth.families.stylegan3 import Generator
from crossfake.synth.importing.importer import import_model
from crossfake.synth.sampling.models import load_model
from crossfake.synth.sampling.perception import choose_perception
from crossfake.synth.settings import ImportSettings

from .conftest import nested

Arrays = dict[str, torch.Tensor]


def _official_names(ours: Generator) -> Arrays:
    """What the official repository calls the parameters and buffers of a generator."""
    names = [
        f"synthesis.L{k}_{ours.bands[min(k, len(ours.bands) - 1)].size}_{len(layer.bias)}"
        for k, layer in enumerate(ours.layers)
    ]
    theirs = {"synthesis.input.transform": torch.eye(3)}
    for name, value in ours.state_dict().items():
        name = re.sub(r"^layers\.(\d+)", lambda match: names[int(match[1])], name)
        name = re.sub(r"^mapping\.layers\.", "mapping.fc", name).replace("magnitude", "magnitude_ema")
        theirs[f"synthesis.{name}" if name.startswith("input.") else name] = value
    for name, layer in zip(names[:-1], ours.layers, strict=False):
        for what in ("up_filter", "down_filter"):
            theirs[f"{name}.{what}"] = torch.tensor(getattr(layer.activation, what)).float()
    return theirs


def _official_judge(ours: Discriminator) -> Arrays:
    theirs = {}
    for name, value in ours.state_dict().items():
        name = name.replace("from_rgb", "b32.fromrgb").replace("dense.", "fc.").removeprefix("blocks.")
        name = re.sub(r"^mapping\.layers\.", "mapping.fc", name)
        name = re.sub(r"^(conv|fc|out)\.", r"b4.\1.", name)
        theirs[re.sub(r"^(\d+)\.", r"b\1.", name)] = value
    return theirs


@pytest.fixture
def written(official: Any, tmp_path: Path) -> Callable[..., Path]:
    """A pickle of these arrays."""

    def write(generator: Arrays, judge: Arrays | None = None, **facts: Any) -> Path:
        content = {
            "G_ema": nested(official, "training.networks_stylegan3.Generator", generator, False, **facts)
        }
        if judge is not None:
            content["D"] = nested(official, "training.networks_stylegan2.Discriminator", judge, True, **facts)
        (tmp_path / "network.pkl").write_bytes(pickle.dumps(content))
        return tmp_path / "network.pkl"

    return write


def _tiny(rotation: bool = False, **arguments: Any) -> Generator:
    torch.manual_seed(0)
    widths = [6, 6, 5, 4]
    return Generator(32, z_dim=8, layers=4, layer_widths=widths, rotation=rotation, **arguments).eval()


@pytest.mark.parametrize("rotation", [False, True])
def test_an_official_pickle_becomes_a_model(
    rotation: bool, written: Callable[..., Path], tmp_path: Path
) -> None:
    ours, judge = _tiny(rotation, classes=2), Discriminator(32, 64, 2, clamp=256.0)
    file = written(_official_names(ours), _official_judge(judge), conv_clamp=256)
    model = load_model(import_model(ImportSettings(file, tmp_path / "m")), precision="fp32")
    assert model.family == ("stylegan3-r" if rotation else "stylegan3")
    assert model.card["source"]["format"] == "stylegan3" and len(model.card["classes"]) == 2
    latents, labels = torch.randn(3, ours.latent_dim), torch.eye(2)[[0, 1, 0]]
    torch.testing.assert_close(model.network(latents, labels=labels), ours(latents, labels=labels))
    assert (tmp_path / "m" / "discriminator.safetensors").exists()
    assert choose_perception(model).name  # whatever weights are at hand, the discriminator fits
    assert not Path("run-by-the-import").exists()


@pytest.mark.parametrize("name", ["t", "r", "t_cond"])
def test_images_of_an_imported_pickle_equal_the_reference(
    name: str, written: Callable[..., Path], tmp_path: Path, real_weights: Path
) -> None:
    file = real_weights.parent / "vectors" / f"stylegan3_{name}_32px.npz"
    if not file.exists():
        pytest.skip("no reference arrays beside the weights")
    arrays = {key: torch.from_numpy(value) for key, value in np.load(file).items()}
    theirs = {key[2:]: value for key, value in arrays.items() if key.startswith("G/")}
    model = load_model(import_model(ImportSettings(written(theirs), tmp_path / "m")), precision="fp32")
    network: Any = model.network
    ws = network.styles(arrays["z"], arrays.get("c") if name == "t_cond" else None, 0.7)
    torch.testing.assert_close(network.synthesis(ws), arrays["img_psi0.7"], atol=1e-4, rtol=1e-5)


def _other_filter(theirs: Arrays) -> None:
    next(value for name, value in theirs.items() if name.endswith("L1_52_6.down_filter"))[2] += 0.01


def _no_filter(theirs: Arrays) -> None:
    del theirs["synthesis.L1_52_6.up_filter"]


def _no_layer(theirs: Arrays) -> None:
    for name in [name for name in theirs if ".L2_" in name]:
        del theirs[name]


def _moved(theirs: Arrays) -> None:
    theirs["synthesis.input.transform"] = torch.eye(3) * 2


def _no_input(theirs: Arrays) -> None:
    del theirs["synthesis.input.phases"]


def _more(theirs: Arrays) -> None:
    theirs["synthesis.L1_52_6.noise"] = torch.zeros(1)


def _wide_margin(theirs: Arrays) -> None:
    for name in [name for name in theirs if ".L0_" in name]:
        theirs[name.replace("L0_36_", "L0_9999_")] = theirs.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_filter, "layer 1 filters in another way"),
        (_no_filter, "layer 1 filters in another way"),
        (_no_layer, "it has 4 layers"),
        (_moved, "its pictures are moved"),
        (_no_input, "phases"),
        (_more, "noise"),
        (_wide_margin, "its margin is"),
    ],
)
def test_what_is_computed_in_another_way_is_refused(
    change: Callable[[Arrays], None], message: str, written: Callable[..., Path], tmp_path: Path
) -> None:
    theirs = _official_names(_tiny())
    change(theirs)
    with pytest.raises(UserError, match=message):
        import_model(ImportSettings(written(theirs), tmp_path / "m"))
    assert not (tmp_path / "m").exists()


def test_other_scales_are_refused(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scaled in another way"):
        import_model(ImportSettings(written(_official_names(_tiny()), output_scale=1.0), tmp_path / "m"))
