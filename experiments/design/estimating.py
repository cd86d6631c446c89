"""What an experiment on photos will take, from their number and a small version of it that is made and thrown away."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import SOURCES, SourceSpec
from crossfake.datasets.splits import Fractions
from crossfake.errors import UserError
from crossfake.experiments.design.config import Config, GeneratorConfig
from crossfake.experiments.run.splices import make_splices
from crossfake.pages import duration, plural
from crossfake.runs import Run
from crossfake.weights import KNOWN, folders, locate

_SAMPLE = 200  # photos that are prepared
_FAKES = 64  # that stand for those which are not made yet
_STEPS = 4  # of a generator's training that are timed
_DRAWN = 64  # fakes whose making is timed


@dataclass(frozen=True)
class Sketch:
    """A few of the photos, prepared as all of them will be.

    Attributes:
        reals: their shards.
        photos: in the source.
        looked_at: of them.
        kept: share of these that could be used.
        seconds: that all will take.
    """

    reals: Path
    photos: int
    looked_at: int
    kept: float
    seconds: float
    split: Fractions

    @classmethod
    def make(cls, config: Config, work: Path) -> Sketch:
        """Prepare the first photos into a folder below ``work``.

        Raises:
            UserError: the source cannot be read, a face model is missing, or none of the photos can be used.
        """
        given = dict(config.prepare)
        spec = SourceSpec(str(given["source"]), int(given.get("seed", 0)), int(given.get("size", 64)))
        limit = given.pop("limit", None)
        count = SOURCES.get(spec.layout)().count(spec) or limit or 0
        photos = min(count, limit) if limit else count
        sample = min(photos, _SAMPLE)
        done = prepare(PrepareSettings(**given, out=work / "reals", limit=sample))
        seconds = done.seconds * photos / max(sample, 1)
        split = Fractions.parse(str(given.get("split", PrepareSettings.split)))
        return cls(done.out, photos, sample, done.real / max(sample, 1), seconds, split)

    @property
    def faces(self) -> int:
        """That all photos will give."""
        return round(self.photos * self.kept)

    @property
    def tested(self) -> int:
        """Of these, in the test split."""
        own = ShardSet(self.reals)
        dealt = own.attributes.get("split") and not own.columns["split"].tolist().count("")
        share = len(own.select(split="test")) / max(len(own), 1)
        return round(self.faces * (self.split.test if dealt else share))

    def line(self, source: object) -> str:
        """What is said of a source: its photos, the share that can be used, and the faces that they give."""
        usable = f"{self.kept:.0%} of the first {self.looked_at:,} could be used"
        faces = f"about {plural(self.faces, 'face')}, {self.tested:,} of them to test on"
        return f"{plural(self.photos, 'photo')} in {source}: {usable}, so {faces}"


def stand_in(reals: Path, work: Path) -> Path | None:
    """A few fakes that take as long to train on as those that are not made yet; None where there are too few photos."""
    try:
        return make_splices([reals], work / "fakes", _FAKES)
    except UserError:
        return None


def making(config: Config, generator: GeneratorConfig, reals: Path, work: Path) -> tuple[float, int] | None:
    """Seconds and bytes that a generator's training and its fakes will take; None where a few steps cannot be made.

    Args:
        reals: shards, of whatever number, of the size that it will learn from.
    """
    from crossfake.fit.checkpoints import save_checkpoint
    from crossfake.fit.loop import measure
    from crossfake.synth.training.settings import TrainSettings
    from crossfake.synth.training.train import GeneratorTraining

    size = ShardSet(reals).size or 0
    made = generator.n if generator.role == "unseen" else round(1.1 * generator.n)
    pixels = 3 * size**2 * made
    if generator.family == "splice":
        return 0.0, pixels
    given = {"family": generator.family, "device": config.device, **generator.train}
    try:
        begun = GeneratorTraining(TrainSettings(data=reals, out=work, **given))
    except UserError:
        return None
    settings, batch = begun.settings, begun.plan.batch
    seconds = measure(begun, _STEPS).seconds / batch * 1000 * settings.kimg
    if settings.minutes is not None:
        seconds = min(seconds, 60 * settings.minutes)
    model = begun.model()
    model.images(0, _DRAWN)  # the first ones allocate
    started = time.monotonic()
    model.images(0, _DRAWN)
    seconds += (time.monotonic() - started) / _DRAWN * made
    checkpoint = save_checkpoint(begun, Run(work / generator.name)).stat().st_size
    return seconds, pixels + 2 * checkpoint


def left_out(config: Config) -> list[str]:
    """A line for each file of weights that is missing: what it measures of the fakes will be left out."""
    from crossfake.synth.settings import EvaluateSettings

    settings = EvaluateSettings(real=Path(), fake=Path(), **config.quality)
    wanted = {
        "inception": (("fid", "kid", "prdc"), settings.inception),
        f"lpips-{settings.lpips_net}": (("lpips", "memory"), settings.lpips_weights),
    }
    lines = []
    for name, (figures, named) in wanted.items():
        lost = [figure for figure in figures if figure in settings.metrics]
        if lost and named is None and locate(name) is None:
            lines.append(
                f"{', '.join(lost)} of the fakes will be left out: {KNOWN[name].files[0]} is missing (fetch it from "
                f"{KNOWN[name].origin} and put it into {folders()[0]})"
            )
    return lines


def disk(needed: float, out: Path) -> str:
    """How much will be written, and how much room there is."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    short = ": too little" if free < needed else ""
    return f"disk: about {needed / 1e9:,.2f} GB, of {free / 1e9:,.1f} GB free{short}"


def lasting(what: str, seconds: float) -> str:
    """What is done, and about how long it takes."""
    return f"{what} about {duration(seconds)}"
