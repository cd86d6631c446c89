"""Published network weights: where they are looked for, and what to say when one is missing."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from crossfake.errors import UserError
from crossfake.files import replacing


@dataclass(frozen=True)
class Weights:
    """A file that is fetched once: the names it may have, where it comes from and what needs it.

    Where ``url`` and ``sha256`` are given, the file is small and freely licensed and is fetched when it is needed;
    the others the user fetches.
    """

    files: tuple[str, ...]
    origin: str
    purpose: str
    url: str = ""
    sha256: str = ""


_TORCHVISION = "https://download.pytorch.org/models/"
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/"
OFFLINE = "CROSSFAKE_OFFLINE"
_PATIENCE = 5  # seconds until a server counts as out of reach
_MOST_BYTES = 10_000_000  # of a file that is fetched without being asked for
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
        _ZOO + "face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
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
            raise UserError(f"the {name} weights {file} are not there", hint="check the path")
        return Path(file)
    weights, why = KNOWN[name], ""
    if found := locate(name):
        return found
    if weights.url:
        try:
            return _fetched(weights)
        except (OSError, ValueError) as error:
            why = f", and fetching it failed ({reason_of(error)})"
    raise UserError(
        f"{weights.purpose} needs the file {weights.files[0]}{why}",
        hint=f"fetch it from {weights.origin} and put it into {folders()[0]}",
    )


def unreachable(url: str) -> str:
    """Why nothing can be fetched from there, asked once and quickly; empty when it answers, if only with an error."""
    if offline():
        return f"{OFFLINE} is set"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return reason_of(error)


def offline() -> bool:
    """Whether the user forbids to fetch anything."""
    return bool(os.environ.get(OFFLINE))


def reason_of(error: Exception) -> str:
    """What went wrong on the way to a server, without the wrapping."""
    found = getattr(error, "reason", error)
    return getattr(found, "strerror", None) or str(found) or type(found).__name__


def _fetched(weights: Weights) -> Path:
    """Fetch a small file into crossfake's cache.

    Raises:
        OSError, ValueError: it cannot be had; ``CROSSFAKE_OFFLINE=1`` forbids to try.
        UserError: it is not what it was.
    """
    if offline():
        raise OSError(f"{OFFLINE} is set")
    with urllib.request.urlopen(weights.url, timeout=20) as answer:
        content = answer.read(_MOST_BYTES)
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise UserError(
            f"{weights.url} is not the file that it was (its SHA-256 differs)",
            hint=f"fetch {weights.files[0]} from {weights.origin} and put it into {folders()[0]}",
        )
    file = folders()[-2] / weights.files[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, shared=True) as temporary:
        temporary.write_bytes(content)
    return file
