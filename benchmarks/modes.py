"""How many of 1,000 modes a family draws: Stacked MNIST (Metz et al. 2017), on the drawn digits of scikit-learn.

    python benchmarks/modes.py --families stylegan2 r3gan dcgan --minutes 3 --images 10000

Three digits are stacked as red, green and blue, which makes a thousand kinds of pictures, equally frequent. A support
vector machine that never saw the digits of the training says what a channel shows. Counted are the kinds among a
family's pictures, and the divergence of their frequencies from equal ones in nats (0 is best); as many fresh stacks of
the same digits say what is possible. Digits are 8×8 and stand in 16×16 pixels, so figures are not comparable with those
of MNIST.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.types import Pixels
from crossfake.memory import keep_freed_memory
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.sampling.generation import generate
from crossfake.synth.settings import GenerateSettings
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.train import train

Kinds = npt.NDArray[np.int64]


class Digits:
    """The digits in two halves: one is drawn from, the other teaches the judge.

    Attributes:
        judge: digits, float ``[N, 64]`` from 0 to 16, to their classes.
    """

    def __init__(self) -> None:
        found = load_digits()
        order = np.random.default_rng(0).permutation(len(found.data))
        half = len(order) // 2
        self._images, self._classes = found.data[order], found.target[order]
        self._drawn, self._taught = slice(0, half), slice(half, None)
        self.judge = SVC(gamma=0.001).fit(self._images[self._taught], self._classes[self._taught])

    @property
    def accuracy(self) -> float:
        """Of the judge, on the digits that are drawn from."""
        return float(self.judge.score(self._images[self._drawn], self._classes[self._drawn]))

    def stacks(self, count: int, seed: int) -> tuple[Pixels, Kinds]:
        """Pictures uint8 ``[count, 16, 16, 3]``, all kinds equally likely, and the kinds from 0 to 999."""
        rng = np.random.default_rng(seed)
        kinds = rng.integers(0, 1000, count)
        images = np.empty((count, 16, 16, 3), np.uint8)
        pools = [np.flatnonzero(self._classes[self._drawn] == digit) for digit in range(10)]
        for channel, power in enumerate((100, 10, 1)):
            for digit in range(10):
                rows = np.flatnonzero(kinds // power % 10 == digit)
                digits = self._images[rng.choice(pools[digit], len(rows))].reshape(-1, 8, 8)
                images[rows, :, :, channel] = (digits * (255 / 16)).repeat(2, axis=1).repeat(2, axis=2)
        return images, kinds

    def kinds(self, images: Pixels) -> Kinds:
        """What pictures show, as the judge sees them: 0 to 999."""
        small = images.reshape(len(images), 8, 2, 8, 2, 3).mean(axis=(2, 4)) * (16 / 255)
        digits = [self.judge.predict(small[..., channel].reshape(-1, 64)) for channel in range(3)]
        found: Kinds = digits[0] * 100 + digits[1] * 10 + digits[2]
        return found


def modes(kinds: Kinds) -> tuple[int, float]:
    """How many kinds there are, and the divergence of their frequencies from equal ones, in nats."""
    counts = np.bincount(kinds, minlength=1000)
    share = counts[counts > 0] / counts.sum()
    return len(share), float((share * np.log(share)).sum() + math.log(1000))


def write(folder: Path, digits: Digits, count: int, seed: int) -> Path:
    images, kinds = digits.stacks(count, seed)
    with ShardWriter(folder, 16, attributes={"crop": {"policy": "none"}}) as writer:
        for number, (image, kind) in enumerate(zip(images, kinds, strict=True)):
            row = Row(0, "stacked-digits", split="train", group=str(number), origin=f"{number}: {kind:03d}")
            writer.append(image, row)
    return folder


def measure(family: str, digits: Digits, data: Path, images: int, out: Path, **how: Any) -> tuple[int, float]:
    """Train a family on stacks, and count the kinds among its pictures."""
    run = train(TrainSettings(data, out / family, family, **how))
    made = ShardSet(generate(GenerateSettings(images, run, out / f"{family}-fakes")))
    return modes(digits.kinds(made.read_many(range(len(made)))))


def main() -> None:
    adversarial = [name for name in FAMILIES.names() if FAMILIES.get(name).discriminator]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=adversarial, choices=adversarial)
    parser.add_argument("--minutes", type=float, default=3, help="of each training")
    parser.add_argument("--kimg", type=float, default=10_000)
    parser.add_argument("--stacks", type=int, default=20_000, help="to learn from")
    parser.add_argument("--images", type=int, default=10_000, help="to count kinds in")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_freed_memory()
    digits = Digits()
    print(f"the judge is right about {digits.accuracy:.1%} of the digits that are drawn from")
    with tempfile.TemporaryDirectory() as place:
        data = write(Path(place) / "data", digits, args.stacks, args.seed)
        rows = {"real stacks": modes(digits.kinds(digits.stacks(args.images, args.seed + 1)[0]))}
        for family in args.families:
            how = {"minutes": args.minutes, "kimg": args.kimg, "seed": args.seed}
            rows[family] = measure(family, digits, data, args.images, Path(place), **how)
    print(f"{f'{args.images:,} pictures':<20}{'kinds of 1,000':>16}{'divergence, nats':>20}")
    for name, (count, divergence) in rows.items():
        print(f"{name:<20}{count:>16,}{divergence:>20.3f}")


if __name__ == "__main__":
    main()
