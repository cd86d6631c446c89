"""Training of a detector: balanced batches, early stopping on validation AP, a bundle at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossfake.datasets.types import Pixels
from crossfake.detect.bundle import bundle, calibration
from crossfake.detect.training.benign import edited
from crossfake.detect.training.data import VALIDATION_WINDOWS, TrainingData
from crossfake.detect.training.learner import DetectorLearner, not_finite
from crossfake.detect.training.recipes import RECIPES
from crossfake.detect.training.reopening import sampler_of, trained_with
from crossfake.detect.training.runs import differences, matched
from crossfake.detect.training.sampling import Feeder, Sampler, read, reader_threads
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.weighing import Weighed, shares_in_words
from crossfake.detect.view import View
from crossfake.errors import UserError
from crossfake.files import write_json
from crossfake.fit.checkpoints import open_run
from crossfake.fit.learner import FitArguments, Training
from crossfake.fit.loop import fit, measure
from crossfake.pages import plural
from crossfake.progress import tqdm
from crossfake.runs import Run

WEIGHED = "validation_shares"  # in config and card: of runs that weigh their validation images
BENIGN = 0.25  # of the reals are edited, where any are
_BANK = 4096  # images that a nearest-neighbour head compares with

_SHOWN = 2  # generators in the progress line

Report = Callable[[int, dict[str, float]], None]


class DetectorTraining(Training):
    """Data, recipe and network of one run.

    Args:
        settings: of the run.
        weigh_as: settings in whose batches' proportions the validation images count; its own when None.
        on_validation: called after each validation with the step and its figures.

    Raises:
        UserError: bad settings or data.
    """

    learner: DetectorLearner
    checkpoint_name = "last.pt"

    def __init__(
        self,
        settings: TrainSettings,
        weigh_as: TrainSettings | None = None,
        on_validation: Report | None = None,
    ) -> None:
        self.settings = settings = matched(settings)
        self.on_validation = on_validation
        kind = RECIPES.get(settings.recipe)
        self.data = data = TrainingData.open(
            settings.real,
            settings.fake,
            settings.synthetic,
            settings.force,
            kind.reals_only,
            settings.synthetic_limit,
            View(settings.view, settings.window),
        )
        if settings.weights:
            self.data = data = data.starting_from(settings.weights, settings.force)
        self.recipe = kind(settings.augment, data.size, data.crop)
        self.makes = self.recipe if kind.reals_only else None
        self.held = held = data.validation(recipe=self.makes, windows=VALIDATION_WINDOWS)
        begun = Run(settings.out)
        config = begun.config if settings.resume and begun.config_file.exists() else None
        # a run goes on as it began, or its best state so far would be one by another figure
        self.alike = config is not None and WEIGHED not in config
        kept = None if config is None or self.alike else Weighed.recorded(held.kinds, config[WEIGHED])
        self.weighed = (
            Weighed.alike(held.kinds)
            if self.alike
            else kept or Weighed.as_batches(held.kinds, sampler_of(data, weigh_as or settings))
        )
        self.learner = DetectorLearner(settings, data.size, data.view)
        self.ranks = self.learner.ranks
        if "size" in self.learner.network.options:  # made for this size and no other
            self.recipe.keep_size()
        self.sampler = Sampler(
            data,
            settings.batch,
            settings.synthetic_ratio,
            settings.seed,
            balance=settings.balance,
            per_generator=settings.synthetic_per_generator,
            schedule=settings.synthetic_schedule,
            steps=settings.steps,
            fakes=not kind.reals_only,
            pair=settings.pair,
        )
        self.last = settings.stop_after or settings.steps

    def batch(self, step: int) -> Tensor:
        """This process's part of the images of a step, uint8 ``[B, H, W, 3]``, as the recipe leaves them."""
        places = self.sampler.places(step, self.sampler.rng(step))
        # of its own, since how many numbers the places took depends on the fakes, and a control has others
        rng = np.random.default_rng([self.settings.seed, step, 3])
        if self.settings.pair:
            draws = np.tile(self.recipe.draw(rng, len(places) // 2), (2, 1))
        else:
            draws = self.recipe.draw(rng, len(places))
        ranks, windows = self.ranks, self.sampler.windows(step)[: len(places)]
        images = read(ranks.share(places), windows[ranks.rank :: ranks.world])
        if self.settings.benign:
            self._edit(images, step)
        batch = torch.from_numpy(self.recipe(images, draws[ranks.rank :: ranks.world]))
        return batch.pin_memory() if self.learner.device.type == "cuda" else batch

    def _edit(self, images: Pixels, step: int) -> None:
        """Edit some of the reals of this process's part of a batch in place, and the partners of pairs alike."""
        reals = self.settings.batch - self.sampler.fakes
        chosen = np.random.default_rng([self.settings.seed, step, 5]).random(reals) < BENIGN
        for at, place in enumerate(self.ranks.share(list(range(self.settings.batch)))[: len(images)]):
            real = place % reals if self.settings.pair else place
            if real < reals and chosen[real]:
                images[at] = edited(images[at], np.random.default_rng([self.settings.seed, step, 6, real]))

    @property
    def arguments(self) -> FitArguments:
        every = self.settings.eval_every
        return FitArguments(
            self.settings.model,
            self.last,
            log_every=every,
            snapshot_every=every,
            threads=self.settings.threads,
        )

    def batches(self) -> Generator[tuple[Tensor, Tensor]]:
        labels = self.ranks.share(self.sampler.labels)
        with Feeder(self.batch, self.learner.step, reader_threads(self.learner.device)) as self.feeder:
            while True:
                yield self.feeder.take(), labels

    def check_unchanged(self, run: Run) -> None:
        """Wherever the data lie now."""
        config, hashes = run.config, self.data.hashes()
        before: dict[str, str] = config.get("data_hashes") or {}
        hint = "resume with the data it had, or start another --out"
        if list(before.values()) != list(hashes.values()):
            new = [folder for folder, value in hashes.items() if value not in before.values()]
            gone = [folder for folder, value in before.items() if value not in hashes.values()]
            what = (new or gone or list(hashes))[0]
            raise UserError(f"{what} is not among the data of {run.path} as it was", hint=hint)
        if config.get("validation_hash") != self.held.digest:
            raise UserError(f"the validation images of {run.path} have changed", hint=hint)

    def check(self, means: dict[str, float], run: Run) -> None:
        if not math.isfinite(means["loss"]):
            raise not_finite("the loss", self.learner.step, run)

    def outlook(self) -> str:
        settings, step, end = self.settings, self.learner.step, self.last
        validations = (
            end // settings.eval_every - step // settings.eval_every + (end % settings.eval_every > 0)
        )
        sooner = f"; fewer if the AP does not rise (--patience {settings.patience})"
        return f", and {plural(validations, 'validation')}{'' if settings.stop_after else sooner}"

    def enough(self) -> str:
        stale = self.learner.stale
        if stale < self.settings.patience or self.settings.stop_after:
            return ""
        return f"no better AP for {plural(stale, 'validation')}: stopping at step {self.learner.step}"

    def validate(self) -> dict[str, float]:
        """AP and AUC on held-out images, and the AP of each generator; a curriculum is set anew."""
        figures = self.learner.validate(self.held.images, self.held.labels, self.weighed)
        if self.sampler.curriculum is not None:
            self.sampler.curriculum.score(self.learner.step, self.learner.logits)
            self.feeder.renew()
        return figures

    def rates(self, recent: float, overall: float) -> dict[str, float]:
        return {"images_per_second": round(self.settings.batch / overall, 1)}

    def logged(self, figures: dict[str, float], bar: tqdm, snapshot: bool) -> None:
        shown = {"loss": f"{figures['loss']:.3f}", "val_ap": f"{figures['val_ap']:.4f}"}
        bar.set_postfix(shown | _worst(figures))
        if self.on_validation is not None:
            self.on_validation(self.learner.step, figures)

    def state(self) -> dict[str, Any]:
        curriculum = self.sampler.curriculum
        return super().state() | {"curriculum": curriculum.state() if curriculum else []}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        if self.sampler.curriculum is not None:
            self.sampler.curriculum.restore(state["curriculum"])

    def describe(self) -> str:
        data, labels = self.data, self.held.labels
        kinds = (("reals", data.real), ("fakes", data.fake), ("synthetic fakes", data.synthetic))
        unused = self.recipe.reals_only
        counts = ", ".join(
            f"{sum(len(p.train) for p in pools):,} {kind}"
            for kind, pools in kinds
            if pools and not (unused and kind != "reals")
        )
        trained, frozen = self.learner.count()
        held = f", {frozen / 1e6:.2f} M frozen" if frozen else ""
        seen = "in native windows of" if data.view.native else "of"
        pairs = " in pairs" if self.settings.pair else ""
        return (
            f"{self.settings.model} on {counts} {seen} {data.size}×{data.size}{pairs}, recipe {self.settings.recipe}, "
            f"{trained / 1e6:.2f} M parameters{held}; validation on {int((labels == 0).sum()):,} reals and "
            f"{int(labels.sum()):,} fakes, which count as {shares_in_words(self.shares())}"
        )

    def shares(self) -> list[dict[str, Any]]:
        """Of every kind, source and generator: number of validation images and their part of every figure."""
        return self.weighed.describe()


def train(
    settings: TrainSettings, on_validation: Report | None = None, weigh_as: TrainSettings | None = None
) -> Path:
    """Train a detector; returns the run folder, with the bundle in ``model/``.

    The model kept is the one with the best average precision on the validation rows; its temperature and threshold
    come from them too. Every kind of image, source and generator counts in these as much as in training batches.
    Test rows are never read. Under torchrun the processes share each batch.

    Args:
        settings: of the run.
        on_validation: called after each validation with the step and its figures (``val_ap``, ``val_auc``, ``loss``,
            and ``val_ap/NAME`` of each generator); whatever it raises ends the training.
        weigh_as: settings whose batches say how much validation images count, so that trainings of other settings
            can be compared; the run's own when None.

    Raises:
        UserError: bad settings or data, or the loss stopped being finite.
    """
    training = DetectorTraining(settings, weigh_as, on_validation)
    settings = training.settings
    learner, data, held, say = training.learner, training.data, training.held, training.say
    facts = {"size": data.size, "data_hashes": data.hashes(), "validation_hash": held.digest}
    facts |= {} if training.alike else {WEIGHED: training.shares()}
    config, audit = {**asdict(settings), **facts}, {"verdict": "", "summary": ""}
    run, found = open_run(training, settings.out, config, kind="detect", resume=settings.resume)
    if training.is_main:
        audit = data.audit()
        write_json(run.path / "audit.json", audit)
    say(audit["summary"])
    for difference in differences(settings):
        say(f"the comparison with {settings.match_steps} changes more than the fakes: {difference}")
    if found:
        say(f"going on from step {learner.step}")
    for note in data.notes:
        say(note)
    if training.alike:
        say(
            "this run began when every validation image counted alike, and goes on so: its AP is not that of a new "
            "run; 'detect calibrate' weighs them"
        )
    say(training.describe())
    if learner.remembers:
        _remember(training, run)
    elif not fit(training, run):
        say(f"stopped at step {learner.step}: continue with 'detect train --out {run.path} --resume'")
        return run.path
    learner.eval_network.load_state_dict(learner.best["state"])
    if data.view.native:  # calibrated with as many windows as it will judge with
        held = data.validation(recipe=training.makes)
    logits = learner.logits(held.images, "fp32")  # as bundles score
    card = calibration.by_temperature(logits, held.labels, training.weighed.weights)
    ap = training.weighed.figures(held.labels, logits)["val_ap"]  # the best one of the log may be bfloat16's
    if training.is_main:
        bundle.save(
            run.model,
            learner.eval_network,
            {
                "model": settings.model,
                "options": dict(learner.network.options),
                "size": data.size,
                "crop": data.crop,
                **({"view": data.view.describe()} if data.view.native else {}),
                **card,
                "validation_hash": held.digest,
                WEIGHED: training.weighed.describe(held.labels, logits),
                "validation_ap": ap,
                "step": learner.best["step"],
                "recipe": settings.recipe,
                "trained_with": trained_with(data, settings, held.digest, weigh_as),
                "data_hashes": data.hashes(),
                "sources": data.sources(),
                "generators": data.generators(),
                "audit": {"verdict": audit["verdict"], "summary": audit["summary"]},
            },
            data.seen(),
        )
        run.finish({"val_ap": ap, "step": learner.best["step"]})
    return run.path


def _worst(figures: dict[str, float]) -> dict[str, str]:
    """The generators with the lowest AP, for the progress line, where there is more than one."""
    each = sorted((ap, name.partition("/")[2]) for name, ap in figures.items() if name.startswith("val_ap/"))
    return {name: f"{ap:.4f}" for ap, name in each[:_SHOWN]} if len(each) > 1 else {}


def _remember(training: DetectorTraining, run: Run) -> None:
    """In place of steps: a bank of images as the recipe leaves them."""
    learner, settings = training.learner, training.settings
    if training.ranks.world > 1:
        raise UserError(f"{settings.model} does not train", hint="start it without torchrun")
    count = -(-_BANK // settings.batch)
    steps = tqdm(range(count), unit="batch", desc=settings.model)
    learner.remember(map(training.batch, steps), training.sampler.labels)
    held = training.held
    run.log(learner.validate(held.images, held.labels, training.weighed), 0)


def measure_speed(settings: TrainSettings, steps: int = 8) -> float:
    """Seconds per step, measured over a few that are thrown away; 0 for a model that takes none."""
    training = DetectorTraining(settings)
    return 0.0 if training.learner.remembers else measure(training, steps).seconds


def dry_run(settings: TrainSettings, steps: int = 8) -> str:
    """The plan in words, with memory and speed as measured over a few steps that are thrown away."""
    training = DetectorTraining(settings)
    settings = training.settings
    learner, batch, device = training.learner, settings.batch, training.learner.device
    if learner.remembers:
        return f"{training.describe()}\na bank of {_BANK:,} images, and no steps"
    started = time.monotonic()
    for step in range(2):
        training.batch(step)
    reading = 2 * batch / (time.monotonic() - started)
    cost = measure(training, steps)
    epochs = training.last * batch / 2 / sum(len(pool.train) for pool in training.data.real)
    until = "" if settings.stop_after else " at most"
    return (
        f"{training.describe()}\n"
        f"{training.last:,} steps of {batch} images{until}, every real {epochs:.1f} times, validation every "
        f"{settings.eval_every} steps\n"
        f"{batch / cost.seconds:,.0f} images/s on {device}, {reading:,.0f}/s of the recipe in one thread; memory "
        f"{cost.memory:.1f} GB\n"
        f"{training.last:,} steps take {training.last * cost.seconds / 60:.1f} min without validation "
        f"(measured over {steps} steps)"
    )
