"""Real photos through the encoder and decoder of a published autoencoder: what its last stage leaves, and nothing else.

Detectors that learn to tell photos from their own reconstructions find the generators that end in such a decoder
(Rajan et al. 2024; Guillaro et al. 2025). Nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfake.datasets.types import Pixels
from crossfake.errors import UserError
from crossfake.images import to_uint8
from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters
from crossfake.synth.families.diffusion import import_diffusers
from crossfake.synth.families.pipeline import look_for

_WIDTH, _POOL_WIDTH = 64, 256  # maps of TAESD's networks
_KINDS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")  # of diffusers
_PARTS = ("vae", "vqvae", "movq")  # where a pipeline has it
_TAESD = "https://github.com/madebyollin/taesd"


class Reconstructor(nn.Module):
    """Photos of any shape after an autoencoder, as they were but for what it cannot keep.

    Args:
        name: a folder with TAESD's encoder and decoder, a folder of diffusers, or a name on the hub.
        size: not needed.

    Raises:
        UserError: it is not there, or is no autoencoder that is known.
        MissingDependency: it is one of diffusers, which is not installed.
    """

    latent_dim = 0
    needs_photos: ClassVar[bool] = True
    any_size: ClassVar[bool] = True

    def __init__(self, name: str, size: int = 0) -> None:
        super().__init__()
        self.size = size
        folder = Path(name)
        is_taesd = folder.is_dir() and any(folder.glob("*coder.safetensors"))
        self.coder: Taesd | DiffusersAutoencoder = _taesd(folder) if is_taesd else DiffusersAutoencoder(name)
        self.coder.to(memory_format=torch.channels_last)  # several times as quick

    def edit(
        self, photos: Sequence[Pixels], partners: Sequence[Pixels], vectors: Tensor, dtype: torch.dtype
    ) -> list[Pixels]:
        """Reconstructions, uint8 ``[H, W, 3]`` each, of photos of these shapes; nothing about it is random."""
        device = next(self.coder.parameters()).device
        return through(partial(self.coder, dtype=dtype), photos, self.coder.factor, device)


def through(
    coder: Callable[[Tensor], Tensor], photos: Sequence[Pixels], factor: int, device: torch.device
) -> list[Pixels]:
    """Photos through a network that gives images back, one by one: a photo comes out the same in whatever company.

    Args:
        coder: called with float32 ``[1, 3, H, W]``, black at -1 and white at 1; gives the same shape and range.
        photos: uint8 ``[H, W, 3]`` each.
        factor: what sides have to be a multiple of: photos are mirrored at the right and at the bottom for it.
        device: of the network.
    """
    made = []
    for photo in photos:
        height, width = photo.shape[:2]
        padded = np.pad(photo, ((0, -height % factor), (0, -width % factor), (0, 0)), "symmetric")
        image = torch.from_numpy(padded).to(device).permute(2, 0, 1)[None].float().div_(127.5).sub_(1)
        made.append(to_uint8(coder(image)[:, :, :height, :width])[0])
    return made


class _Block(nn.Module):
    """Three convolutions around which the input goes; where there is ``pool``, after that was added."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        if pool:
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, _POOL_WIDTH, 1, bias=False),
                nn.GroupNorm(4, _POOL_WIDTH),
                nn.ReLU(),
                nn.Conv2d(_POOL_WIDTH, _WIDTH, 1, bias=False),
            )
        self.has_pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if self.has_pool:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Squashed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(into: int = _WIDTH, out: int = _WIDTH, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1, **options)


class Taesd(nn.Module):
    """The tiny autoencoders of madebyollin/taesd, eight times down; images come and go in [-1, 1].

    Args:
        depth: channels of the latents: 4, 16 or 32.
        pool: whether the blocks of the lowest resolution look further, as FLUX.2's do.
    """

    factor = 8

    def __init__(self, depth: int, pool: bool) -> None:
        super().__init__()

        def blocks(pool: bool = False) -> list[nn.Module]:
            return [_Block(pool) for _ in range(3)]

        def down() -> nn.Module:
            return _conv(stride=2, bias=False)

        def up() -> list[nn.Module]:
            return [nn.Upsample(scale_factor=2), _conv(bias=False)]

        self.encoder = nn.Sequential(
            _conv(3),
            _Block(False),
            down(),
            *blocks(),
            down(),
            *blocks(),
            down(),
            *blocks(pool),
            _conv(out=depth),
        )
        self.decoder = nn.Sequential(
            _Squashed(),
            _conv(depth),
            nn.ReLU(),
            *blocks(pool),
            *up(),
            *blocks(),
            *up(),
            *blocks(),
            *up(),
            _Block(False),
            _conv(out=3),
        )

    def forward(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        self.to(dtype)
        last = self.decoder[-1].float()  # bfloat16 has steps of a grey level near white
        x = self.decoder[:-1](self.encoder((images / 2 + 0.5).to(dtype)))
        decoded: Tensor = last(x.float())
        return decoded * 2 - 1


def _taesd(folder: Path) -> Taesd:
    weights: dict[str, Tensor] = {}
    for part in ("encoder", "decoder"):
        files = sorted(folder.glob(f"*{part}.safetensors"))
        if len(files) != 1:
            raise UserError(
                f"{folder} holds {len(files) or 'no'} files *{part}.safetensors",
                hint=f"put one encoder and its decoder there, from {_TAESD}",
            )
        try:
            loaded = load_file(files[0])
        except (SafetensorError, OSError) as error:
            raise UserError(f"{files[0]} is damaged ({error})", hint="copy it again") from error
        weights |= {f"{part}.{name}": tensor.float() for name, tensor in loaded.items()}
    try:
        depth = len(weights["encoder.14.bias"])
        network = Taesd(depth, pool="decoder.3.pool.0.weight" in weights)
        network.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{folder} holds no autoencoder of the TAESD family", hint=f"take its files from {_TAESD}"
        ) from error
    return network


class DiffusersAutoencoder(nn.Module):
    """An autoencoder of diffusers, alone or in a pipeline; its weights are safetensors, and none of its code is run.

    Latents are the mean of their distribution, or the nearest of the codebook.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        diffusers = import_diffusers()
        part, config = _config(name, diffusers)
        kind = str(config.get("_class_name", "another model"))
        if kind not in _KINDS:
            raise UserError(f"{name} is {kind}", hint=f"name one of {', '.join(_KINDS)}")
        try:
            self.network = getattr(diffusers, kind).from_pretrained(
                name, subfolder=part or None, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"{name} cannot be loaded ({reason})", hint="name a folder with config.json and safetensors"
            ) from error
        widths = config.get("block_out_channels") or config["decoder_block_out_channels"]
        self.factor = 2 ** (len(widths) - 1)

    def forward(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """``[B, 3, H, W]`` in [-1, 1] to the same, float32."""
        encoded = self.network.to(dtype).encode(images.to(dtype))
        latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latents
        decoded: Tensor = self.network.decode(latents).sample
        return decoded.float()


def _config(name: str, diffusers: Any) -> tuple[str, dict[str, Any]]:
    """Sub-folder and configuration of an autoencoder, of a folder or of a name on the hub."""
    folder = Path(name)
    if folder.exists():
        for part in ("", *_PARTS):
            if (file := folder / part / "config.json").is_file():
                try:
                    return part, dict(json.loads(file.read_text()))
                except (ValueError, TypeError) as error:
                    raise UserError(f"{file} is damaged ({error})", hint="copy it again") from error
        raise UserError(
            f"{name} holds no autoencoder",
            hint=f"name a folder with encoder.safetensors and decoder.safetensors ({_TAESD}), or one of diffusers",
        )
    if name.count("/") != 1:
        raise UserError(f"{name} is not there", hint="check the path, or give a name on the hub: OWNER/NAME")
    look_for(name, "config.json")
    for part in ("", *_PARTS):
        try:
            return part, diffusers.AutoencoderKL.load_config(name, subfolder=part or None)
        except OSError:
            continue
    raise UserError(f"{name} holds no autoencoder", hint=f"name one of {', '.join(_KINDS)}")


FAMILIES.register("reconstruct")(
    Family(
        generator=Reconstructor,
        summary="Photos through a published autoencoder (--model, --photos), without training.",
        learner=None,
        recipe=Hyperparameters(lr=0.0),
    )
)
