"""Looking after a training run: what went wrong, what goes wrong, and which model is the best so far."""

from __future__ import annotations

import math
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.progress import tqdm
from crossfake.runs import Run

_CERTAIN = 0.95  # mean sign of the logits, real and fake, above which the discriminator knows everything
_TICKS = 10  # for so many thousand images
_ALIKE = 0.4  # diversity, relative to that of the real images, below which a generator has collapsed


def diversity(images: Images) -> float:
    """Mean distance between the pictures, uint8 ``[N, H, W, 3]``, at 16×16: root mean square of pixels in [0, 1]."""
    small = F.interpolate(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, (16, 16), mode="area")
    return float(torch.pdist(small.flatten(1)).mean()) / math.sqrt(3 * 16 * 16) if len(images) > 1 else 0.0


class Monitor:
    """Warns once of each thing that goes wrong, and stops at figures that are not finite.

    Args:
        reals: some real images: theirs is the diversity to compare with.
    """

    def __init__(self, reals: Images) -> None:
        self._real_diversity = diversity(reals)
        self._certain: deque[bool] = deque(maxlen=_TICKS)
        self._warned: set[str] = set()

    def check(self, means: dict[str, float], kimg: float, good: Path | None) -> None:
        """Look at the means of a thousand images.

        Raises:
            UserError: one is not finite; it names which, and the checkpoint to go on from.
        """
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            causes = {"r1": "a larger --gamma or a smaller --lr", "path_penalty": "--path-weight 0"}
            cure = causes.get(broken[0], "a smaller --lr or a larger --gamma")
            what = f"{broken[0]} is not finite at {kimg:.1f} kimg"
            if good is None:
                raise UserError(
                    f"{what}, before the first checkpoint", hint=f"start again with {cure} and another --out"
                )
            raise UserError(f"{what}; the last good state is {good}", hint=f"go on with --resume and {cure}")
        if "sign_real" in means:
            self._certain.append(means["sign_real"] > _CERTAIN and means["sign_fake"] < -_CERTAIN)
            if len(self._certain) == _TICKS and all(self._certain):
                self._warn(
                    "certain",
                    f"for {_TICKS} kimg the discriminator has told every fake from every real: the generator learns "
                    "little from it; try --augment ada, a larger --gamma or a smaller --lr",
                )

    def look(self, fakes: Images) -> float:
        """Diversity of a sample sheet relative to that of the reals; warns when the images are all alike."""
        relative = diversity(fakes) / max(self._real_diversity, 1e-6)
        if relative < _ALIKE:
            self._warn(
                "alike",
                f"the fakes differ from each other {relative:.2f} times as much as the reals do: the generator may be "
                "collapsing; try --augment ada or a larger --gamma, or go back with 'synth train --init'",
            )
        return relative

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            tqdm.write(f"warning: {text}")


class Watch:
    """Quality figures on the way, and the model that was best by them in ``best/``.

    FID counts where its network is there, else the sliced Wasserstein distance, which needs none.
    """

    def __init__(self, run: Run, data: Path, split: str, count: int, device: str) -> None:
        self.run, self.data, self.split, self.count, self.device = run, data, split, count, device

    def measure(self) -> dict[str, float]:
        """Figures of the model as it is now."""
        from crossfake.synth.quality.evaluate import evaluate
        from crossfake.synth.sampling.generation import generate
        from crossfake.synth.settings import EvaluateSettings, GenerateSettings

        fakes = self.run.path / "watch"
        shutil.rmtree(fakes, ignore_errors=True)
        settings = GenerateSettings(self.count, self.run.path, fakes, seed=1, device=self.device)
        generate(settings, ranks=(0, 1))  # the other processes wait for this one
        found = evaluate(
            EvaluateSettings(
                self.data,
                fakes,
                real_split=self.split,
                limit=self.count,
                metrics=("fid", "swd", "spectrum"),
                device=self.device,
            )
        )
        shutil.rmtree(fakes, ignore_errors=True)
        figures: dict[str, float] = {
            name: float(found[name]) for name in ("fid", "swd", "spectrum") if name in found
        }
        leading = "fid" if "fid" in figures else "swd"
        earlier = [line[leading] for line in self.run.log_lines() if leading in line]
        if figures[leading] <= min(earlier, default=math.inf):
            best = self.run.path / "best"
            shutil.rmtree(best, ignore_errors=True)
            shutil.copytree(self.run.model, best)
        return figures


def write_film(run: Run, seconds: float = 0.3) -> Path | None:
    """The sample sheets one after another as ``training.gif``; None when there are fewer than two."""
    sheets = sorted(run.samples.glob("[0-9]*.png"))
    if len(sheets) < 2:
        return None
    kept = [sheets[int(k)] for k in np.unique(np.linspace(0, len(sheets) - 1, 60).astype(int))]
    frames: list[Any] = []
    for sheet in kept:
        with Image.open(sheet) as image:
            image.thumbnail((640, 640))
            frames.append(image.convert("P", palette=Image.Palette.ADAPTIVE))
    out = run.path / "training.gif"
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=round(seconds * 1000), loop=0)
    return out
