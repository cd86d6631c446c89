"""What can be set about the commands of ``detect``, but for training: that is in ``training/settings.py``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import click

from crossfake.bounds import Bounds, Count, Minutes, Resamples, Seed, WindowCount, Workers, check_bounds
from crossfake.cli import Existing
from crossfake.detect.training.settings import TrainSettings
from crossfake.errors import UserError
from crossfake.options import Folder, Option, Precision, Shards, There

BUNDLE = Existing(
    "bundle.json",
    "model/bundle.json",
    wrong="holds no detector",
    hint="name a run of 'detect train' or a bundle folder",
)
Bundle = Annotated[Path, BUNDLE]
Inner = Annotated[float, Bounds(0, 1, above=True, below=True)]
Calibration = Literal["auto", "temperature", "beta", "isotonic"]
Novelty = Literal["knn"]
Faces = Literal["all", "largest", "whole"]
Method = Literal["grid", "random", "bayes"]
Sampler = Literal["tpe", "gp"]
Pruner = Literal["median", "hyperband", "none"]


@dataclass(frozen=True)
class TuneSettings:
    """Settings of a search.

    Attributes:
        base: the training whose settings are searched, with data, model and steps; ``out`` is the search's folder.
        space: YAML file of what varies, or scratch or finetune. See :mod:`crossfake.detect.tuning.space`.
        method: how settings are chosen: all in turn, at random, or by what the trials so far have shown.
        sampler: of bayes: TPE or Gaussian process. ``tpe`` is Bergstra et al. 2011; ``gp`` maximises the expected
            improvement.
        pruner: which poor trials end early, by validation AP. ``median`` ends one that is below the median of the
            others at that step, ``hyperband`` (Li et al. 2018) gives most steps to few.
        trials: how many in all [default: 20, or the whole grid]. Those of earlier sessions count; 0 is the default.
        minutes: begin no trial later than this; the final training comes on top. The first begins in any case, and
            those under way are finished. None is no limit.
        trial_steps: steps of a trial [default: as many as of the final training]. No more than the final training's.
        workers: trials at the same time, each in a process of its own
            [default: 1; on Ray as many as the cluster holds]. 0 is the default.
        bootstrap: resamples for the intervals.
    """

    base: TrainSettings
    space: Annotated[Path, click.STRING]
    method: Method = "bayes"
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    trials: Annotated[int, Bounds(0, 10**6)] = 0
    minutes: Minutes | None = None
    trial_steps: Count | None = None
    workers: Annotated[int, Bounds(0, 1024)] = 0
    bootstrap: Annotated[int, Bounds(1, 10**6)] = 1000

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.trial_steps is not None and self.trial_steps > self.base.steps:
            raise UserError(
                f"a trial of {self.trial_steps} steps is longer than the final training of {self.base.steps}",
                hint="give --trial-steps between 1 and --steps",
            )


@dataclass(frozen=True)
class CalibrateSettings:
    """What to calibrate on what.

    Attributes:
        bundle: run of 'detect train' or a bundle [default: the newest finished run].
        real: shards of reals [default: those it was trained with]. Only validation rows calibrate; training rows serve
            the novelty's reference; test rows are never read.
        fake: shards of fakes [default: those it was trained with]. Where all folders that are named were trained with,
            they say where these lie by now, and what is not named is taken from where it was.
        method: ``auto``: best cross-validated likelihood. The others are that method.
        prior: share of fakes among what you will judge [default: as in training batches]. The probabilities hold at it.
        coverage: of either class, the share not to be called the other [default: 0.9; 0 never abstains]. None, here,
            never abstains.
        novelty: how unusual images are found. None is no out-of-distribution score.
        quantile: share of validation images that count as usual.
        bootstrap: resamples for the intervals.
        seed: of the resamples.
        force: calibrate on the folders that are named, whatever training validated on. The threshold is then chosen on
            them.
        device: ``auto``, cpu, cuda or cuda:N.
    """

    bundle: Bundle
    real: tuple[Shards, ...] = ()
    fake: tuple[Shards, ...] = ()
    method: Calibration = "auto"
    prior: Inner | None = None
    coverage: Inner | None = 0.9
    novelty: Annotated[Novelty | None, click.Choice([*get_args(Novelty), "none"])] = "knn"
    quantile: Inner = 0.95
    bootstrap: Resamples = 1000
    seed: Seed = 0
    device: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.method == "temperature" and self.prior is not None:
            raise UserError(
                "a temperature cannot shift a prior",
                hint="use --method beta or isotonic, or leave out --prior",
            )


@dataclass(frozen=True)
class EnsembleSettings:
    """What to make one detector of.

    Attributes:
        bundles: runs of 'detect train' or bundles, two at least.
        real: shards of reals [default: those of the members].
        fake: shards of fakes [default: those of the members].
        method: all alike, weights that sum to 1, or logistic regression. See
            :func:`~crossfake.detect.ensemble.fit_weights`.
        force: go on where it cannot be known what a member was trained on.
        out: run folder.
        device: ``auto``, cpu, cuda or cuda:N.
    """

    bundles: tuple[Bundle, ...]
    real: tuple[Shards, ...] = ()
    fake: tuple[Shards, ...] = ()
    out: Folder = Path("runs/detect-ensemble")
    method: Literal["mean", "weighted", "stacked"] = "weighted"
    device: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class EvaluateSettings:
    """What to evaluate on what.

    Attributes:
        bundle: run of 'detect train' or a bundle [default: the newest finished run].
        data: shards of reals and of fakes; several may follow.
        split: rows to use; 'all' takes every row.
        out: folder for the results [default: evaluation in the run]. A bundle without a run has it inside.
        bootstrap: resamples for the intervals.
        seed: of the resamples, of the random sheet and of edits.
        benign: also retouch reals as people do, and count false alarms.
        force: evaluate data of another crop, or of groups trained on.
        device: ``auto``, cpu, cuda or cuda:N.
        precision: number format; thresholds are of fp32. ``auto`` is bf16 where it is quick.
    """

    bundle: Bundle
    data: tuple[Shards, ...]
    split: str = "test"
    out: Folder | None = None
    bootstrap: Annotated[int, Bounds(0, 10**6)] = 1000
    seed: Seed = 0
    benign: bool = False
    device: str = "auto"
    precision: Precision = "fp32"
    force: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("there is nothing to evaluate on", hint="name shard folders with --data DIR")
        check_bounds(self)


@dataclass(frozen=True)
class LoadSettings:
    """How a detector is opened: what :func:`crossfake.detect.bundle.bundle.load` takes beside the path.

    Attributes:
        windows: of each face, for a detector of native pixels [default: the bundle's].
        face_model: YuNet's ONNX file.
        backend: what runs the network.
        device: ``auto``, cpu, cuda or cuda:N.
        precision: number format; thresholds are of fp32. ``auto`` is bf16 where it is quick.
    """

    windows: WindowCount | None = None
    face_model: There | None = None
    backend: Literal["torch", "onnx", "onnx-int8"] = "torch"
    device: str = "auto"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class PredictSettings:
    """What to judge of each file.

    Attributes:
        faces: judge all faces, the largest, or the whole picture [default: as the detector was trained]. None is all
            faces for a detector trained on faces and the whole picture for others.
        annotate: new folder for copies with the verdicts drawn in. It may be there, empty. With ``--metadata`` it gets
            error levels and noise of each picture as well, and the key frames of each video.
        metadata: show all that files say of themselves: EXIF, software, generators' marks, C2PA manifests. Whether a
            file names a generator is said in any case.
        trust: certificates (PEM) that signers of C2PA manifests are trusted by [default: none are].
        prior: share of fakes among what you judge [default: as the detector was calibrated]. Moves the probability, and
            what is fake only above one half.
        frames: of each video, evenly spread.
        allow_urls: fetch what is named by http or https.
        workers: open files; 0: one per core. They are processes, which find faces, too; 1 works in this one.
    """

    faces: Faces | None = None
    frames: Annotated[int, Bounds(1, 10**6)] = 32
    allow_urls: bool = False
    annotate: Folder | None = None
    workers: Workers = 1
    metadata: bool = False
    trust: There | None = None
    prior: Inner | None = None

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class ExplainSettings:
    """What to explain, and how.

    Attributes:
        bundle: run of 'detect train' or a bundle [default: the newest finished run].
        photos: images, or folders of them.
        method: ``gradcam``, gradcam++, hirescam, integrated-gradients, occlusion, rollout, spectrum or prototypes; auto
            takes what suits the model. They are in :data:`~crossfake.detect.explain.methods.METHODS`.
        out: folder for pictures and figures [default: explanations in the run].
        check: test the method on validation images: is what it shows true? See
            :func:`crossfake.detect.explain.checks.check`.
        data: shards to check on and to compare with; several may follow [default: those of the training].
        images: at most so many for each figure of --check.
        seed: of what is drawn.
        face_model: YuNet's ONNX file.
        device: ``auto``, cpu, cuda or cuda:N.
    """

    bundle: Bundle
    photos: tuple[There, ...] = ()
    method: str = "auto"
    out: Folder | None = None
    check: bool = False
    data: tuple[Shards, ...] = ()
    images: Annotated[int, Bounds(1, 10**6)] = 64
    seed: Seed = 0
    device: str = "auto"
    face_model: There | None = None

    def __post_init__(self) -> None:
        if not self.photos and not self.check:
            raise UserError("there is no image to explain", hint="name images, or --check")
        if self.method != "auto":
            from crossfake.detect.explain.methods import METHODS  # brings torch

            METHODS.get(self.method)
        check_bounds(self)


@dataclass(frozen=True)
class ImportSettings:
    """Which published detector to read.

    Attributes:
        source: the authors' file: what torch.save wrote, safetensors, or Keras's .h5.
        name: name of the detector in the table.
        out: bundle folder to write.
        backbone: weights of the tower, where SOURCE is a last layer only.
        table: YAML file with entries of your own.
    """

    source: There
    name: Annotated[str, Option("--as")]
    out: Folder
    backbone: There | None = None
    table: There | None = None


@dataclass(frozen=True)
class ExportSettings:
    """What to export.

    Attributes:
        bundle: run of 'detect train' or a bundle [default: the newest finished run].
        format: kind of file.
        out: file to write [default: in the bundle]. There ``--backend onnx`` (int8: ``onnx-int8``) looks for it.
        images: shards to check on [default: those of the training]. Where these are gone it is drawn faces. Test rows
            are never read.
        int8: quantise for CPUs; tells the AP that it costs.
    """

    bundle: Bundle
    format: Literal["onnx", "torchscript"] = "onnx"
    out: Folder | None = None
    images: tuple[Shards, ...] = ()
    int8: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.int8 and self.format != "onnx":
            raise UserError("int8 is for ONNX", hint="use --format onnx")
