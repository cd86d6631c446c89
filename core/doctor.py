"""``crossfake doctor``: what is installed, which weights are present, which device will be used."""

from __future__ import annotations

import importlib.util

import click

from crossfake.provenance import environment
from crossfake.weights import KNOWN, folders, locate

# Packages that only some commands need, and what they bring.
_OPTIONAL = {
    "cv2": "face detection",
    "lpips": "LPIPS",
    "timm": "detector backbones",
    "tensorboard": "training curves",
}


@click.command()
def doctor() -> None:
    """What is installed, which weights are present, which device will be used."""
    import torch

    from crossfake.device import compute_dtype, has_fast_bf16, pick_device

    facts = environment()
    device = pick_device("auto")
    click.echo(
        f"crossfake {facts['crossfake']}, Python {facts['python']}, commit {facts['git_commit'] or 'none'}"
    )
    for package, version in facts["packages"].items():
        click.echo(f"  {package:<14}{version or 'missing'}")
    for module, use in _OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            click.echo(f"  {module:<14}missing: no {use}")
    hardware = facts["hardware"]
    click.echo(
        f"\ndevice {device}: {', '.join(hardware['gpus']) or hardware['cpu']}, {torch.get_num_threads()} threads"
    )
    quick = "quick" if has_fast_bf16(device) else "slow"
    click.echo(
        f"  bfloat16 is {quick} here: networks run in {str(compute_dtype(device, 'auto')).removeprefix('torch.')}"
    )
    click.echo(f"\nweights, looked for in {', '.join(map(str, folders()))}")
    for name, weights in KNOWN.items():
        click.echo(f"  {name:<14}{locate(name) or f'missing: {weights.files[0]} from {weights.origin}'}")
