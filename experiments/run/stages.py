"""What happens before the first detector: reals prepared, generators trained, fakes made, measured and pictured.

Every stage's folder carries the hash of what it was made from in its name. Running again finds finished stages,
goes on with unfinished ones, and puts those of an edited configuration beside the old ones: nothing is deleted.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.datasets.firewall import FILE
from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.experiments.design.config import Config, GeneratorConfig
from crossfake.experiments.design.protocols import REAL
from crossfake.experiments.run.splices import make_splices
from crossfake.files import write_json
from crossfake.images import Images, contact_sheet, save_png
from crossfake.progress import tqdm
from crossfake.provenance import hash_json
from crossfake.runs import Run
from crossfake.stopping import StoppedByUser

SHEET = (24, 6)  # pictures per contact sheet, and its columns
SEED_OF = {"train": 0, "test": 1}  # of generation: pictures to test on share no latent with those to train on


@dataclass
class PictureSet:
    """Pictures of one role, and what the report says about them.

    Attributes:
        train: shard folders that detectors train on (all their rows but those of split ``test``).
        test: shard folders with the rows that they are tested on.
        made: how, in a few words.
        kimg: thousands of images that their generator was shown in training; None where that is not known.
    """

    name: str
    role: str
    family: str = ""
    year: int | None = None
    train: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    made: str = ""
    caption: str = ""
    note: str = ""
    kimg: float | None = None
    quality: dict[str, Any] | None = None
    picture: str | None = None
    grid: str | None = None
    hash: str = ""

    def facts(self) -> dict[str, Any]:
        """What the report needs."""
        return {key: value for key, value in vars(self).items() if key not in ("train", "test", "made")}


@dataclass
class Stages:
    """The stages of one experiment folder, and after :meth:`run` their pools and wall times by title."""

    config: Config
    out: Path
    pools: list[PictureSet] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> PictureSet:
        return next(pool for pool in self.pools if pool.name == name)

    @property
    def reals(self) -> tuple[Path, ...]:
        """Folders of the reals that detectors train on."""
        return self[REAL].train

    def run(self) -> None:
        """Make everything that the configuration asks for; afterwards ``pools`` is complete.

        Raises:
            UserError: a setting or an input is wrong, or a stage was stopped with Ctrl-C.
        """
        self.pools = [self._reals()]
        for generator in self.config.generators:
            if generator.dir:
                train = () if generator.role == "unseen" else trainable(generator.dir)
                pool = PictureSet(generator.name, "", train=train, test=generator.dir, note=generator.note)
            elif generator.family == "splice":
                pool = self._splices(generator)
            else:
                pool = self._generated(generator)
            pool.role, pool.family, pool.year = generator.role or "", generator.kin, generator.year
            self.pools.append(pool)
        for pool in self.pools:
            self._describe(pool)

    def _stage(self, title: str, folder: Path, done: Callable[[], bool], work: Callable[[], Any]) -> None:
        """Do the work unless it is done; its wall time is kept by folder, all attempts together."""
        ledger = self.out / "stages.json"
        seconds: dict[str, float] = json.loads(ledger.read_text()) if ledger.exists() else {}
        if not done():
            tqdm.write(f"\n{title}")
            started = time.monotonic()
            try:
                work()
            finally:
                seconds[folder.name] = round(seconds.get(folder.name, 0.0) + time.monotonic() - started, 2)
                write_json(ledger, seconds)
        self.seconds[title] = seconds.get(folder.name, 0.0)

    def _reals(self) -> PictureSet:
        folders = self.config.real
        if self.config.prepare:
            from crossfake.datasets.prepare import prepare
            from crossfake.datasets.settings import PrepareSettings

            out = prepared_folder(self.config, self.out)

            def work() -> None:
                tqdm.write(prepare(PrepareSettings(**self.config.prepare, out=out)).table())
                (out / "done").touch()

            self._stage("prepare real faces", out, (out / "done").exists, work)
            folders = (*folders, out)
        return PictureSet(REAL, "real", train=folders, test=folders)

    def _splices(self, generator: GeneratorConfig) -> PictureSet:
        key = hash_json([generator.n, [ShardSet(folder).hash for folder in self.reals]])[:8]
        out = self.out / "generators" / f"{generator.name}-{key}"

        def work() -> None:
            make_splices(list(self.reals), out, generator.n)
            (out / "done").touch()

        self._stage(f"make {generator.name}", out, (out / "done").exists, work)
        made = "One face pasted into another, without any network."
        return PictureSet(generator.name, "", train=(out,), test=(out,), made=made, note=generator.note)

    def _generated(self, generator: GeneratorConfig) -> PictureSet:
        from crossfake.synth.sampling.generation import generate
        from crossfake.synth.sampling.models import load_model
        from crossfake.synth.settings import GenerateSettings

        run = generator.model or self._trained(generator)
        model = load_model(run, device="cpu")
        wanted = {"test": generator.n}
        if generator.role != "unseen":
            wanted = {"train": generator.n, "test": max(1, generator.n // 10)}
        folders = {}
        for split, n in wanted.items():
            name = f"{generator.name}-{model.hash[:8]}-psi{generator.trunc:g}-{split}-n{n}"
            out = folders[split] = self.out / "generators" / name
            settings = GenerateSettings(
                n, run, out, generator.trunc, SEED_OF[split], split, device=self.config.device
            )
            title = f"generate {generator.name}: {n:,} to {'train on' if split == 'train' else split}"
            self._stage(title, out, partial(_is_made, out), partial(generate, settings))
        train = (folders["train"],) if "train" in folders else ()
        pool = PictureSet(generator.name, "", train=train, test=(folders["test"],), note=generator.note)
        kimg = model.card.get("kimg")
        pool.made = (
            f"{model.family}{f' after {1000 * kimg:,.0f} pictures of training' if kimg else ', imported'}."
        )
        pool.quality = self._quality(pool)
        pool.grid = self._grid(generator.name, Path(run))
        return pool

    def _trained(self, generator: GeneratorConfig) -> Path:
        from crossfake.synth.training.settings import TrainSettings
        from crossfake.synth.training.train import train

        if len(self.reals) > 1:
            hint = f"give {generator.name} a model:"
            raise UserError("generators train on one shard folder of reals", hint=hint)
        key = hash_json([generator.family, generator.train, ShardSet(self.reals[0]).hash])[:8]
        out = self.out / "generators" / f"{generator.name}-{key}"
        run = Run(out)
        resume = any((out / "checkpoints").glob("*.pt"))
        if run.config_file.exists() and not resume and not run.finished:
            run.config_file.unlink()  # stopped before the first checkpoint: nothing to go on with
        settings = {"family": generator.family, "device": self.config.device, **generator.train}
        work = partial(train, TrainSettings(data=self.reals[0], out=out, resume=resume, **settings))
        self._stage(f"train {generator.name}", out, lambda: run.finished, work)
        if not run.finished:
            raise StoppedByUser(f"training of {generator.name}")
        return out

    def _quality(self, pool: PictureSet) -> dict[str, Any]:
        from crossfake.synth.quality.evaluate import evaluate
        from crossfake.synth.settings import EvaluateSettings

        folder = (pool.train or pool.test)[0]
        key = hash_json([self.config.quality, ShardSet(folder).hash, ShardSet(self.reals[0]).hash])[:8]
        file = self.out / "quality" / f"{pool.name}-{key}.json"
        file.parent.mkdir(exist_ok=True)
        settings = {"device": self.config.device, "baseline": True, **self.config.quality}
        work = partial(
            evaluate, EvaluateSettings(self.reals[0], folder, real_split="train", out=file, **settings)
        )
        self._stage(f"measure {pool.name}", file, file.exists, work)
        return json.loads(file.read_text())

    def _grid(self, name: str, run: Path) -> str | None:
        """A copy of the newest sample sheet of the generator's training."""
        from shutil import copyfile

        sheets = sorted((run / "samples").glob("[0-9]*.png"))
        if not sheets:
            return None
        target = self.out / "pictures" / f"{name}-training.png"
        target.parent.mkdir(exist_ok=True)
        copyfile(sheets[-1], target)
        return f"pictures/{target.name}"

    def _describe(self, pool: PictureSet) -> None:
        """Contact sheet, caption, hash, and the quality figures that may lie beside shards made elsewhere."""
        folders = tuple(dict.fromkeys((*pool.train, *pool.test)))
        sets = [ShardSet(folder) for folder in folders]
        pool.hash = sets[0].hash if len(sets) == 1 else hash_json([shards.hash for shards in sets])
        pool.kimg = sets[0].attributes.get("model", {}).get("kimg")
        quality = folders[0] / "quality.json"
        if pool.quality is None and quality.exists():
            pool.quality = json.loads(quality.read_text())
        label = 0 if pool.role == "real" else 1
        counts = {
            split: sum(len(s.select(split=split, label=label)) for s in sets)
            for split in ("train", "val", "test", "")
        }
        total, held_out = sum(counts.values()), counts["test"]
        numbers = f"{total - held_out:,} to train on and validate, {held_out:,} to test"
        if pool.role == "unseen":
            numbers = f"{total:,}, to test only"
        pool.caption = f"{USE[pool.role]}; {numbers}. {pool.made}".strip()
        pool.picture = "pictures/" + re.sub(r"[^\w.-]+", "-", pool.name) + ".png"
        save_png(contact_sheet(handful(sets[0], label), SHEET[1]), self.out / pool.picture)


def _is_made(folder: Path) -> bool:
    """Whether fakes are complete, with what their generator learned from: sets of before lack that, and get it."""
    return all((folder / name).exists() for name in ("generated.json", FILE))


def prepared_folder(config: Config, out: Path) -> Path:
    """Where the reals of ``prepare`` go; complete when it holds the file ``done``."""
    return out / f"real-{hash_json(config.prepare)[:8]}"


def trainable(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Those shard folders that hold anything but test pictures."""
    return tuple(folder for folder in folders if (ShardSet(folder).columns["split"] != "test").any())


USE = {
    "real": "all conditions",
    "seen": "seen fakes, all conditions",
    "synthetic": "own fakes",
    "unseen": "unseen fakes",
    "": "fakes",
}


def handful(shards: ShardSet, label: int, largest: int = 128) -> Images:
    """A random, uncurated few, made no larger than ``largest``: uint8 ``[24, s, s, 3]`` (fewer if there are fewer)."""
    import cv2

    rows = shards.select(label=label)
    rows = np.sort(np.random.default_rng(0).permutation(rows)[: SHEET[0]])
    side = min(shards.size or largest, largest)
    images = [shards.read(int(row)) for row in rows]
    return np.stack(
        [
            i if i.shape[:2] == (side, side) else cv2.resize(i, (side, side), interpolation=cv2.INTER_AREA)
            for i in images
        ]
    )
