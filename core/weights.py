"""Published network weights: where they are looked for, and what to say when one is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crossfake.errors import UserError


@dataclass(frozen=True)
class Weights:
    """A file that users fetch once: the names it may have, where it comes from and what needs it."""

    files: tuple[str, ...]
    origin: str
    purpose: str


_TORCHVISION = "https://download.pytorch.org/models/"
KNOWN: dict[str, Weights] = {
    "inception": Weights(
        ("pt_inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-upto768.pth"),
        "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
        "FID",
    ),
    "lpips-alex": Weights(("alexnet-owt-7be5be79.pth",), _TORCHVISION, "LPIPS"),
    "lpips-vgg": Weights(("vgg16-397923af.pth",), _TORCHVISION, "LPIPS"),
    "lpips-squeeze": Weights(("squeezenet1_1-b8a52dc0.pth",), _TORCHVISION, "LPIPS"),
    "yunet": Weights(
        (
            "face_detection_yunet_2023mar.onnx",
            "yunet/yunet_n_dynamic.onnx",
            "yunet/yunet_n_320_320.onnx",
        ),
        "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
        "finding faces",
    ),
}


def folders() -> list[Path]:
    """Where weights are looked for: ``$CROSSFAKE_WEIGHTS``, crossfake's cache, torch hub's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = os.environ.get("CROSSFAKE_WEIGHTS")
    return [
        *([Path(named)] if named else []),
        cache / "crossfake" / "weights",
        cache / "torch" / "hub" / "checkpoints",
    ]


def locate(name: str) -> Path | None:
    """The first file on disk for a known name, or None."""
    found = (folder / file for file in KNOWN[name].files for folder in folders())
    return next((path for path in found if path.is_file()), None)


def find_weights(name: str, file: str | Path | None = None) -> Path:
    """The path of the weights ``name``: ``file`` if given, else the first that :func:`locate` finds.

    Raises:
        UserError: it is nowhere; the message says which file, from where, and where to put it.
    """
    if file is not None:
        if not Path(file).is_file():
            raise UserError(f"the {name} weights {file} are not there", mend="check the path")
        return Path(file)
    found = locate(name)
    if found is None:
        weights = KNOWN[name]
        raise UserError(
            f"{weights.purpose} needs the file {weights.files[0]}",
            mend=f"fetch it from {weights.origin} and put it into {folders()[0]}",
        )
    return found
