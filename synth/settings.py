"""What can be set about the commands of ``synth``, but for training: that is in ``training/settings.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click

from crossfake.bounds import MOST, Bounds, CountOrNone, LongSeed, Seed, ThreadCount, Truncation, check_bounds
from crossfake.cli import Existing
from crossfake.errors import UserError
from crossfake.options import Folder, Option, Precision, Shards, There
from crossfake.seeds import parse_seeds

MODEL = Existing(
    "model.json",
    "model/model.json",
    wrong="holds no generator",
    hint="name a run of 'synth train' or a model folder",
)
Upsample = Literal["", "nearest", "transposed", "pixelshuffle", "bilinear"]  # of windows; empty is the first
FACTOR = 4  # from the side of a window to that of its latents
METRICS = ("fid", "fd", "kid", "prdc", "lpips", "memory", "swd", "spectrum", "detectability")


class _Maker(Existing):
    """A model, or what the family ``reconstruct`` takes instead: any folder, or a name on the hub."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if ctx is not None and ctx.params.get("family") == "reconstruct":
            return Path(value)
        return super().convert(value, param, ctx)


Model = Annotated[Path, MODEL]
Maker = Annotated[Path, _Maker(*MODEL.holds, wrong=MODEL.wrong, hint=MODEL.hint)]
Images = Annotated[Path, Existing(hint="name shards, a folder of pictures, or a model")]
LpipsNet = Literal["alex", "vgg", "squeeze"]


class _Pair(click.ParamType[Any]):
    """Two numbers, as ``0.25,0``."""

    name = "x,y"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        try:
            x, y = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers, such as 0.25,0", param, ctx)
        return x, y


class _Listed(click.ParamType[Any]):
    """Several values as they are typed, in one word: ``1-8``, ``0,0.5,1``."""

    def __init__(self, name: str, parse: Callable[[str], Sequence[Any]]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return tuple(self._parse(value)) if isinstance(value, str) else value


def parse_psis(text: str) -> list[float]:
    """Truncations from a list of numbers.

    Raises:
        UserError: it is no such list, or one is out of range.

    Example:
        >>> parse_psis("0,0.5,1")
        [0.0, 0.5, 1.0]
    """
    try:
        psis = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(
            f"{text!r} is no list of truncations", hint="write --trunc 0.7 or --trunc 0,0.5,1"
        ) from error
    if not all(0 <= psi <= 2 for psi in psis):
        raise UserError(f"truncation psi {text} is out of range", hint="give --trunc between 0 and 1")
    return psis


def _parse_metrics(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text != "all" else list(METRICS)


Seeds = Annotated[tuple[LongSeed, ...], _Listed("seeds", parse_seeds)]
Truncations = Annotated[tuple[Truncation, ...], _Listed("psis", parse_psis)]
Shift = Annotated[float, Bounds(-1, 1)]
Turn = Annotated[float, Bounds(0, 360)]


@dataclass(frozen=True)
class Move:
    """How pictures are moved and turned: by the input of their generator (Karras et al. 2021, app. F).

    Attributes:
        translate: right and down, in widths of the picture.
        rotate: degrees, counterclockwise.

    Raises:
        UserError: a number is out of range.
    """

    translate: tuple[Shift, ...] = (0.0, 0.0)
    rotate: Turn = 0.0

    def __post_init__(self) -> None:
        check_bounds(self)
        if len(self.translate) != 2:
            raise UserError(
                f"--translate has {len(self.translate)} numbers",
                hint="give two: right and down, in widths of the picture",
            )

    def __bool__(self) -> bool:
        return any(self.translate) or self.rotate % 360 != 0


@dataclass(frozen=True)
class GenerateSettings:
    """What to make.

    Attributes:
        n: number of images [default: one of each of --photos]. 0 is one of each photo, in order.
        model: run or model folder; for --family reconstruct an autoencoder [default: the newest finished run]. The
            autoencoder is a folder, or a name on the hub.
        out: shard folder [default: inside the run]. It is named after n, psi and seed.
        trunc: truncation psi; less than 1 trades variety for fewer odd images. See Karras et al. 2019, sec. 2.1.
        seed: image i depends on the model, this and i alone.
        split: what the rows' split column says [default: train; without --n the photos']. It also says which photos
            are taken.
        family: one to train nothing for: blend, swap or reconstruct. It stands in place of a model.
        photos: shards of reals, for a model that edits them. Image i is made of photo i, and so on round.
        match_spectrum: filter each fake to its photo's power spectrum: as sharp as it, other traces stay.
        label: number of the class [default: all in turn].
        translate: move a stylegan3's pictures right and down, in widths of the picture [default: 0,0].
        rotate: turn a stylegan3's pictures counterclockwise, in degrees [default: 0].
        reject: drop this share of images, the least face-like: 0.1, say. It raises precision and lowers recall, since
            what is rare goes first. They are judged by the model's discriminator where it was kept.
        like: judge by how near they are to these reals, not by the discriminator. Rows of split train count; FID's
            network is needed.
        compile: translate the network first: pays from some 10,000 images on. It is torch.compile, which needs a C++
            compiler and half a minute. Images differ by rounding from those made without, so rows say that it was
            done.
        device: ``auto``, cpu, cuda or cuda:N.
        precision: ``auto``: bf16 where it is quick.
        threads: of torch, on a CPU [default: one or all, whichever a few steps are quicker with]. A variable
            OMP_NUM_THREADS counts as chosen. Images are the same.
    """

    n: CountOrNone = 0
    model: Maker | None = None
    out: Folder | None = None
    trunc: Truncation = 1.0
    seed: LongSeed = 0
    split: str | None = None
    family: Annotated[str, Option(is_eager=True)] = ""
    photos: Shards | None = None
    label: CountOrNone | None = None
    match_spectrum: bool = False
    translate: Annotated[tuple[Shift, ...], _Pair()] = (0.0, 0.0)
    rotate: Turn = 0.0
    reject: Annotated[float, Bounds(0, 0.9)] = 0.0
    like: Shards | None = None
    compile: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    threads: ThreadCount = 0

    def __post_init__(self) -> None:
        check_bounds(self)
        Move(self.translate, self.rotate)
        if self.family and self.model and self.family != "reconstruct":
            raise UserError("a family and a model are too much", hint="give --model or --family")
        if not self.n and not self.photos:
            raise UserError("it is not said how many images to make", hint="give a number with --n")
        if self.like and not self.reject:
            raise UserError(
                "--like judges what --reject drops", hint="give --reject 0.1, or leave --like out"
            )
        if self.match_spectrum and not self.photos:
            raise UserError(
                "spectra are matched to photos, and there are none", hint="name them with --photos"
            )


@dataclass(frozen=True)
class EvaluateSettings:
    """What to compare, and how.

    Attributes:
        real: shards or pictures of reals. Pictures are a folder, all of one size.
        fake: shards or pictures of fakes, or a run. Of a run or model ``limit`` images, or as many as there are reals,
            are made for it.
        dims: FID features; papers': 2048.
        inception: the FID network's file. It is looked for in the weights folders when None.
        resize: how images get to a network's size [default: torch; clean for --features]. ``torch`` is as in
            pytorch-fid.
        features: one more network to compare by: timm:NAME. There may be several, for ``fd``.
        weights: the file of --features. There are as many, in the same order.
        lpips_net: LPIPS network.
        lpips_weights: weights of that network, from torchvision. They are looked for when None.
        metrics: some of fid,fd,kid,prdc,lpips,memory,swd,spectrum,detectability [default: all]. One whose weights are
            nowhere is skipped. ``fid`` brings MiFID and FID∞, ``prdc`` precision, recall, density and coverage, ``fd``
            is the distance in ``features``, ``memory`` the LPIPS to the nearest real.
        real_split: only reals of this split, or all [default: all but test]. Detectors are tested on split ``test``.
        limit: at most so many images from each side. They are chosen by the seed.
        baseline: also compare one half of the reals with the other. It is what a perfect generator would get.
        trunc: truncation psi of a run's images.
        sweep: truncations for a curve, such as 0.5,0.7,1. It is of FID and recall.
        out: result file [default: quality.json beside the fakes]. The page has its name, too.
        seed: of every random choice.
        device: ``auto``, cpu, cuda or cuda:N.
        precision: ``auto``: bf16 where it is quick.
        batch: images at a time; 0 chooses.
    """

    real: Images
    fake: Images
    dims: Literal[2048, 768, 192, 64] = 2048
    inception: There | None = None
    lpips_net: LpipsNet = "alex"
    lpips_weights: There | None = None
    metrics: Annotated[tuple[str, ...], _Listed("names", _parse_metrics)] = METRICS
    resize: Literal["", "torch", "tf", "clean"] = ""
    features: tuple[str, ...] = ()
    weights: tuple[There, ...] = ()
    real_split: str | None = None
    limit: Annotated[int, Bounds(2, MOST)] | None = None
    batch: CountOrNone = 0
    seed: Seed = 0
    device: str = "auto"
    precision: Precision = "auto"
    baseline: bool = False
    trunc: Truncation = 1.0
    sweep: Truncations = ()
    out: Folder | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in self.metrics or ("none",):
            if name not in METRICS:
                raise UserError(f"--metrics {name} is unknown", hint=f"use {', '.join(METRICS)}")
        if "fd" in self.metrics and self.metrics != METRICS and not self.features:
            raise UserError(
                "fd is of networks that are named", hint="give --features timm:NAME --weights FILE"
            )
        if len(self.features) != len(self.weights) or not all(f.startswith("timm:") for f in self.features):
            raise UserError(
                "every other network needs its own file", hint="give --features timm:NAME with --weights FILE"
            )
        if self.features and "fd" not in self.metrics:
            raise UserError("--features is for the figure fd", hint="add fd to --metrics, or drop --features")


@dataclass(frozen=True)
class ProjectSettings:
    """What to project, and how.

    Attributes:
        photos: a picture, for :func:`~crossfake.synth.sampling.projected.project_photo`; shards of reals or a folder of
            photos, for :func:`~crossfake.synth.sampling.projected.project_set`.
        model: run or model folder [default: the newest finished run].
        out: folder.
        space: one w, or one per layer. See :func:`~crossfake.synth.sampling.projection.project`.
        steps: for each of w and w+.
        lpips_net: LPIPS network. It is the one that is wanted most.
        lpips_weights: weights of that network, from torchvision. They are looked for when None.
        device: ``auto``, cpu, cuda or cuda:N.
        precision: ``auto``: bf16 where it is quick.
    """

    photos: Path
    out: Folder
    model: Model | None = None
    space: Literal["w", "w+"] = "w+"
    steps: Annotated[int, Bounds(1, 10**6)] = 200
    lpips_net: LpipsNet = "vgg"
    lpips_weights: There | None = None
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class GridSettings:
    """What a sheet of pictures shows.

    Attributes:
        model: run or model folder [default: the newest finished run].
        seeds: such as 1-100 or 1-5,7; each is image 0 of 'generate --seed' [default: 1-100].
        trunc: truncation psi; several, as 0,0.5,1, make a column each [default: 1].
        mix: take these styles of --columns.
        columns: seeds whose styles are taken [default: those of --seeds].
        translate: move a stylegan3's pictures right and down, in widths of the picture [default: 0,0].
        rotate: turn a stylegan3's pictures counterclockwise, in degrees [default: 0].
        out: the sheet, a PNG.
        label: number of the class [default: the first].
        device: ``auto``, cpu, cuda or cuda:N.
        precision: ``auto``: bf16 where it is quick.
    """

    model: Model | None = None
    seeds: Seeds = tuple(range(1, 101))
    trunc: Truncations = (1.0,)
    mix: Literal["coarse", "middle", "fine"] | None = None
    columns: Seeds | None = None
    translate: Annotated[tuple[Shift, ...], _Pair()] = (0.0, 0.0)
    rotate: Turn = 0.0
    out: Folder = Path("grid.png")
    label: CountOrNone | None = None
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_bounds(self)
        Move(self.translate, self.rotate)
        if self.mix and len(self.trunc) > 1:
            raise UserError("a table of mixed styles has one truncation", hint="give --trunc 0.7, say")
        if self.columns and not self.mix:
            raise UserError("--columns are for a table of mixed styles", hint="give --mix coarse with it")


@dataclass(frozen=True)
class InterpolateSettings:
    """What a film walks through.

    Attributes:
        model: run or model folder [default: the newest finished run].
        seeds: seeds to pass, such as 1-8 or 3,14,15 [default: 1-8].
        space: latents that the walk goes through [default: w where the model has styles].
        frames: from a seed to the next.
        fps: frames per second.
        trunc: truncation psi.
        out: the film, *.mp4 or *.gif. MP4 is H.264, which needs PyAV.
        label: number of the class [default: the first].
        device: ``auto``, cpu, cuda or cuda:N.
        precision: ``auto``: bf16 where it is quick.
    """

    model: Model | None = None
    seeds: Seeds = tuple(range(1, 9))
    space: Literal["w", "z"] | None = None
    frames: Annotated[int, Bounds(1, 10_000)] = 60
    fps: Annotated[int, Bounds(1, 120)] = 30
    trunc: Truncation = 1.0
    out: Folder = Path("walk.mp4")
    label: CountOrNone | None = None
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class ImportSettings:
    """What to read, and what its card says.

    Attributes:
        source: a ``.pkl`` or ``.pt`` file, a diffusers pipeline (a folder, or a name on the hub), or a shard folder.
        out: model folder to write.
        name: what rows call the generator.
        license: for the card.
        url: for the card: where it is from.
        prompt: of a pipeline that takes one.
        size: of a pipeline's images.
    """

    source: Path
    out: Folder
    name: str = ""
    license: str = ""
    url: str = ""
    prompt: str = ""
    size: Annotated[int, Bounds(8, 4096)] = 64

    def __post_init__(self) -> None:
        check_bounds(self)
