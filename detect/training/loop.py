"""Training of a detector: balanced batches, early stopping on validation AP, a bundle at the end."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossfake.detect.bundle import bundle, calibration
from crossfake.detect.training.benign import edited
from crossfake.detect.training.data import VALIDATION_WINDOWS, TrainingData
from crossfake.detect.training.learner import Learner, load_checkpoint, not_finite, save_checkpoint
from crossfake.detect.training.recipes import RECIPES
from crossfake.detect.training.reopening import sampler_of, trained_with
from crossfake.detect.training.sampling import Feeder, Sampler, read, reader_threads
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.weighing import Weighed, told
from crossfake.errors import UserError
from crossfake.files import write_json
from crossfake.pages import duration, plural
from crossfake.progress import tqdm
from crossfake.runs import Run
from crossfake.stopping import Stopper

WEIGHED = "validation_shares"  # in config and card: of runs that weigh their validation images
_UNTIMED, _TIMED = 2, 4  # steps: the first ones allocate, the next say what training costs
_WORTH = 10.0  # seconds from which on what is to come is told
BENIGN = 0.25  # of the reals are edited, where any are
_BANK = 4096  # images that a nearest-neighbour head compares with

_SHOWN = 2  # generators in the progress line

Report = Callable[[int, dict[str, float]], None]


class Training:
    """Data, recipe and network of one run.

    Args:
        settings: of the run.
        weigh_as: settings in whose batches' proportions the validation images count; its own when None.

    Raises:
        UserError: bad settings or data.
    """

    def __init__(self, settings: TrainSettings, weigh_as: TrainSettings | None = None) -> None:
        self.settings = settings
        kind = RECIPES.get(settings.recipe)
        self.data = data = TrainingData.open(
            settings.real,
            settings.fake,
            settings.synthetic,
            settings.force,
            kind.reals_only,
            settings.synthetic_limit,
            settings.seen_as,
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
        self.learner = Learner(settings, data.size, data.view)
        self.ranks = self.learner.ranks
        if "size" in self.learner.network.options:  # made for this size and no other
            self.recipe.keep_size()
        self.sampler = Sampler(
            data, settings.batch, settings.synthetic_ratio, settings.seed,
            balance=settings.balance, per_generator=settings.synthetic_per_generator,
            schedule=settings.synthetic_schedule, steps=settings.steps, fakes=not kind.reals_only,
            pair=settings.pair,
        )  # fmt: skip
        self.last = settings.stop_after or settings.steps

    def batch(self, step: int) -> Tensor:
        """This process's part of the images of a step, uint8 ``[B, 3, H, W]``, as the recipe leaves them."""
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
        images = self.recipe(images, draws[ranks.rank :: ranks.world])
        return images.pin_memory() if self.learner.device.type == "cuda" else images

    def _edit(self, images: Tensor, step: int) -> None:
        """Edit some of the reals of this process's part of a batch in place, and the partners of pairs alike."""
        pixels, reals = images.permute(0, 2, 3, 1).numpy(), self.settings.batch - self.sampler.fakes
        chosen = np.random.default_rng([self.settings.seed, step, 5]).random(reals) < BENIGN
        for at, place in enumerate(self.ranks.share(list(range(self.settings.batch)))[: len(pixels)]):
            real = place % reals if self.settings.pair else place
            if real < reals and chosen[real]:
                pixels[at] = edited(pixels[at], np.random.default_rng([self.settings.seed, step, 6, real]))

    def feeder(self) -> Feeder:
        return Feeder(self.batch, self.learner.step, reader_threads(self.learner.device))

    def validate(self, feeder: Feeder) -> dict[str, float]:
        """AP and AUC on held-out images, and the AP of each generator; a curriculum is set anew."""
        figures = self.learner.validate(self.held.images, self.held.labels, self.weighed)
        if self.sampler.curriculum is not None:
            self.sampler.curriculum.score(self.learner.step, self.learner.logits)
            feeder.renew()
        return figures

    def checkpoint(self, run: Run) -> None:
        if self.ranks.leads:
            curriculum = self.sampler.curriculum
            state = {"curriculum": curriculum.state() if curriculum else []}
            save_checkpoint(self.learner.state() | state, run)

    def restore(self, run: Run) -> None:
        state = load_checkpoint(run, self.learner.device)
        try:
            self.learner.restore(state)
        except Exception as error:
            raise UserError(
                f"the checkpoint of {run.path} does not fit ({error})", mend="resume with the settings it had"
            ) from error
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
            f"{int(labels.sum()):,} fakes, which count as {told(self.shares())}"
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
    training = Training(settings, weigh_as)
    learner, data, held = training.learner, training.data, training.held
    say: Callable[[str], None] = tqdm.write if training.ranks.leads else lambda text: None
    run, audit = Run(settings.out), {"verdict": "", "summary": ""}
    if training.ranks.leads:
        facts = {"size": data.size, "data_hashes": data.hashes(), "validation_hash": held.digest}
        facts |= {} if training.alike else {WEIGHED: training.shares()}
        if settings.resume:
            _check_unchanged(run, data.hashes(), held.digest)
    if settings.resume:
        training.restore(run)  # before anything of the run is written: it may not fit
    if training.ranks.leads:
        run = Run.create(settings.out, {**asdict(settings), **facts}, kind="detect", resume=settings.resume)
        audit = data.audit()
        write_json(run.path / "audit.json", audit)
    say(audit["summary"])
    for difference in settings.differences():
        say(f"the comparison with {settings.match_steps} changes more than the fakes: {difference}")
    if settings.resume:
        if training.ranks.leads:
            run.trim_log(learner.step)
        say(f"going on from step {learner.step}")
    for note in data.notes:
        say(note)
    if training.alike:
        say(
            "this run began when every validation image counted alike, and goes on so: its AP is not that of a new "
            "run; 'detect calibrate' weighs them"
        )
    say(training.describe())
    try:
        with Stopper() as stopper:
            stopped = _loop(training, run, stopper, on_validation, say)
    finally:
        run.close()
    if stopped:
        say(f"stopped at step {learner.step}: continue with 'detect train --out {run.path} --resume'")
        return run.path
    learner.judge.load_state_dict(learner.best["state"])
    if data.view.native:  # calibrated with as many windows as it will judge with
        held = data.validation(recipe=training.makes)
    logits = learner.logits(held.images, "fp32")  # as bundles score
    card = calibration.by_temperature(logits, held.labels, training.weighed.weights)
    ap = training.weighed.figures(held.labels, logits)["val_ap"]  # the best one of the log may be bfloat16's
    if training.ranks.leads:
        bundle.save(
            run.model,
            learner.judge,
            {
                "model": settings.model, "options": dict(learner.network.options), "size": data.size,
                "crop": data.crop, **({"view": data.view.describe()} if data.view.native else {}),
                **card, "validation_hash": held.digest,
                WEIGHED: training.weighed.describe(held.labels, logits),
                "validation_ap": ap, "step": learner.best["step"], "recipe": settings.recipe,
                "trained_with": trained_with(data, settings, held.digest, weigh_as),
                "data_hashes": data.hashes(), "sources": data.sources(),
                "audit": {"verdict": audit["verdict"], "summary": audit["summary"]},
            },
            data.seen(),
        )  # fmt: skip
        run.finish({"val_ap": ap, "step": learner.best["step"]})
    return run.path


def _check_unchanged(run: Run, hashes: dict[str, str], validation: str) -> None:
    """Raise ``UserError`` when a run is to go on with other data than it began with, wherever that lies now."""
    if not run.config_file.exists():
        return
    config = run.config
    before: dict[str, str] = config.get("data_hashes") or {}
    mend = "resume with the data it had, or start another --out"
    if list(before.values()) != list(hashes.values()):
        new = [folder for folder, value in hashes.items() if value not in before.values()]
        gone = [folder for folder, value in before.items() if value not in hashes.values()]
        what = (new or gone or list(hashes))[0]
        raise UserError(f"{what} is not among the data of {run.path} as it was", mend=mend)
    if config.get("validation_hash") != validation:
        raise UserError(f"the validation images of {run.path} have changed", mend=mend)


def _loop(
    training: Training,
    run: Run,
    stopper: Stopper,
    on_validation: Report | None,
    say: Callable[[str], None],
) -> bool:
    """Returns whether the user asked to stop."""
    settings, learner, ranks, end = training.settings, training.learner, training.ranks, training.last
    labels = ranks.share(training.sampler.labels)
    if learner.remembers:
        _remember(training, run)
        return False
    started, began_at = time.monotonic(), learner.step
    marks: list[float] = []
    bar = tqdm(total=end, initial=learner.step, unit="step", desc=settings.model, disable=not ranks.leads)
    with bar, training.feeder() as feeder:
        while learner.step < end:
            if learner.stale >= settings.patience and not settings.stop_after:
                say(
                    f"no better AP for {plural(learner.stale, 'validation')}: stopping at step {learner.step}"
                )
                break
            learner.learn(feeder.take(), labels)
            bar.update()
            if learner.step - began_at in (_UNTIMED, _UNTIMED + _TIMED):
                float(learner.losses[-1])  # waits for a GPU
                marks.append(time.monotonic())
                if (
                    len(marks) == 2
                    and (each := (marks[1] - marks[0]) / _TIMED) * (end - learner.step) >= _WORTH
                ):
                    say(_cost(training, each))
            asked = ranks.agreed(stopper.asked)
            if learner.step % settings.eval_every == 0 or learner.step == end:
                loss = learner.mean_loss()
                if not math.isfinite(loss):
                    raise not_finite("the loss", learner.step, run)
                figures = {"loss": loss, **training.validate(feeder)}
                rate = (learner.step - began_at) * settings.batch / (time.monotonic() - started)
                training.checkpoint(run)
                if ranks.leads:
                    run.log({**figures, "images_per_second": round(rate, 1)}, learner.step)
                worst = _worst(figures)
                bar.set_postfix({"loss": f"{loss:.3f}", "val_ap": f"{figures['val_ap']:.4f}", **worst})
                if on_validation is not None:
                    on_validation(learner.step, figures)
            elif asked:
                if not math.isfinite(learner.mean_loss()):
                    raise not_finite("the loss", learner.step, run)
                training.checkpoint(run)
            if asked and learner.step < end:
                return True
    return False


def _worst(figures: dict[str, float]) -> dict[str, str]:
    """The generators with the lowest AP, for the progress line, where there is more than one."""
    each = sorted((ap, name.partition("/")[2]) for name, ap in figures.items() if name.startswith("val_ap/"))
    return {name: f"{ap:.4f}" for ap, name in each[:_SHOWN]} if len(each) > 1 else {}


def _cost(training: Training, seconds: float) -> str:
    """What is to come, by the time that the first steps took."""
    settings, step, end = training.settings, training.learner.step, training.last
    validations = end // settings.eval_every - step // settings.eval_every + (end % settings.eval_every > 0)
    sooner = (
        "" if settings.stop_after else f"; fewer if the AP does not rise (--patience {settings.patience})"
    )
    return (
        f"{end - step:,} of {end:,} steps to go: about {duration((end - step) * seconds)} at {seconds:.2g} s each "
        f"(measured over {_TIMED}), and {plural(validations, 'validation')}{sooner}"
    )


def _remember(training: Training, run: Run) -> None:
    """In place of steps: a bank of images as the recipe leaves them."""
    learner, settings = training.learner, training.settings
    if training.ranks.world > 1:
        raise UserError(f"{settings.model} does not train", mend="start it without torchrun")
    count = -(-_BANK // settings.batch)
    steps = tqdm(range(count), unit="batch", desc=settings.model)
    learner.remember(map(training.batch, steps), training.sampler.labels)
    held = training.held
    run.log(learner.validate(held.images, held.labels, training.weighed), 0)


def measure_speed(settings: TrainSettings, steps: int = 8) -> float:
    """Seconds per step, measured over a few that are thrown away; 0 for a model that takes none."""
    training = Training(settings)
    return 0.0 if training.learner.remembers else _seconds_per_step(training, steps)


def _seconds_per_step(training: Training, steps: int) -> float:
    learner, labels = training.learner, training.ranks.share(training.sampler.labels)
    with training.feeder() as feeder:
        for step in range(steps + 2):
            if step == 2:  # the first ones allocate
                started = time.monotonic()
            learner.learn(feeder.take(), labels)
        float(learner.losses[-1])  # waits for a GPU
        return (time.monotonic() - started) / steps


def dry_run(settings: TrainSettings, steps: int = 8) -> str:
    """The plan in words, with memory and speed as measured over a few steps that are thrown away."""
    training = Training(settings)
    learner, batch, device = training.learner, settings.batch, training.learner.device
    if learner.remembers:
        return f"{training.describe()}\na bank of {_BANK:,} images, and no steps"
    started = time.monotonic()
    for step in range(2):
        training.batch(step)
    reading = 2 * batch / (time.monotonic() - started)
    seconds = _seconds_per_step(training, steps)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    epochs = training.last * batch / 2 / sum(len(pool.train) for pool in training.data.real)
    until = "" if settings.stop_after else " at most"
    return (
        f"{training.describe()}\n"
        f"{training.last:,} steps of {batch} images{until}, every real {epochs:.1f} times, validation every "
        f"{settings.eval_every} steps\n"
        f"{batch / seconds:,.0f} images/s on {device}, {reading:,.0f}/s of the recipe in one thread; memory "
        f"{memory:.1f} GB\n"
        f"{training.last:,} steps take {training.last * seconds / 60:.1f} min without validation "
        f"(measured over {steps} steps)"
    )
