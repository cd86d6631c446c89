"""What can be set about ``crossfake data``; what the audit is asked for is in ``audit/settings.py``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from crossfake.bounds import Bounds, Count, Seed, Workers, check_bounds
from crossfake.errors import UserError
from crossfake.options import Folder, Option, PixelKind, Shards, There

if TYPE_CHECKING:
    from crossfake.datasets.crops import Cropper

MinFace = Annotated[int, Bounds(0, 10_000)]
MinSharpness = Annotated[float, Bounds(0, 10**6)]
MaxYaw = Annotated[float, Bounds(1, 90)]
MinConfidence = Annotated[float, Bounds(0.1, 1)]
Enlarge = Annotated[float, Bounds(0, 1000)]
MinSize = Annotated[int, Bounds(1, 10_000)]
CropPolicy = Literal["face", "square", "center", "none"]
Class = Literal["real", "fake"]
RADIUS = 32  # bits: docs/data.md has the distances of copies and of different photos that this lies between
LARGEST_SHARE = (
    0.85  # of its sides that a crop made smaller keeps: above that, blocks of an old JPEG can stay
)
MIN_SIZE = 128  # pixels: the window that detectors of native pixels take by default
_ABOUT_FACES = ("faces", "min_face", "min_sharpness", "max_yaw", "min_confidence")


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of :func:`prepare`.

    Attributes:
        source: a registered source, ``NAME:PATH``, or a path whose layout is recognised: a folder of images and
            videos, a zip archive, a published data set, a shard folder.
        out: shard folder to write.
        size: height and width in pixels. Native crops have their own.
        pixels: ``native``: cut out upright at the photo's own pixels, rows of their own sizes. ``aligned`` crops are
            resampled.
        min_size: least side of native crops; others are left out.
        shrink: make native crops smaller, to a share between this and 0.85. It is drawn for each crop that is not to
            test on, and takes the blocks of the JPEG that it was; 0 leaves them as they are.
        crop: ``face``: aligned; ``square``: upright around a face; ``center``: the middle; ``none``: all of it. See
            :class:`~crossfake.datasets.crops.Cropper`.
        margin: side of the crop relative to the face; 1.3 is FFHQ's framing [default: 1.3 for faces]. 0 is the
            policy's own.
        edge: a picture that ends too close to the face: leave it out, mirror it there, or end there
            [default: skip; clip for native pixels].
        faces: which of several faces; mask: the one that the data set marks.
        min_face: least side of a face, in pixels.
        min_sharpness: least variance of the Laplacian; try 20. It is of the face.
        max_yaw: most degrees that a head may be turned.
        min_confidence: of the face detector; falls with occlusion; try 0.8.
        frames: of each video, evenly spread.
        split: shares of train, val and test. A source's own split wins.
        name: what the source column says [default: the folder's name]. A data set may have a name of its own.
        label: what the images are for which nothing else says it. A source's own labels win. When None, one folder
            that nothing names a class is taken to be real, and whoever gets the result is told; see
            :func:`~crossfake.datasets.sources.labelling.label_of_rest`.
        labels: what folders are, or values of a table's label; several may follow, skip=D leaves out. As ``real=A,B``,
            ``fake=C`` and ``skip=D``.
        generator: what made the fakes: a name that you choose; 'folders' takes each sub-folder's
            [default: the source's name].
        only: one class of a set with both.
        variant: of a set with several versions: c23, c40, raw. FaceForensics++ is one.
        limit: stop after so many images or videos. Skipped ones count; None takes all.
        codec: how rows are stored. ``original`` is the file's bytes as they are, without any crop.
        workers: processes; 0 is one per core.
        face_model: YuNet's ONNX file.
        seed: for splits and for drawn sources.
        history: JPEG quality through which every crop goes once, so that all share one compression; 0 is none.
        enlarge: how many times a crop may be enlarged; 0 is the policy's own limit.
    """

    source: str
    out: Folder
    size: Annotated[int, Bounds(8, 4096)] = 64
    crop: CropPolicy = "face"
    margin: Annotated[float, Bounds(0.25, 6.5, zero=True)] = 0.0
    faces: Literal["largest", "all", "mask"] = "largest"
    min_face: MinFace = 0
    min_sharpness: MinSharpness = 0.0
    max_yaw: MaxYaw = 90.0
    min_confidence: MinConfidence = 0.6
    edge: Literal["skip", "reflect", "clip"] | None = None
    pixels: PixelKind = "aligned"
    min_size: MinSize = MIN_SIZE
    shrink: Annotated[float, Bounds(0.1, LARGEST_SHARE, zero=True)] = 0.0
    frames: Annotated[int, Bounds(1, 10**6)] = 32
    split: str = "0.8/0.1/0.1"
    name: str = ""
    label: Class | None = None
    labels: Annotated[tuple[str, ...] | str, Option(metavar="real=A,B fake=C")] = ()
    generator: Annotated[str, Option(metavar="NAME")] = ""
    variant: str = ""
    limit: Count | None = None
    only: Class | None = None
    codec: Literal["raw", "webp", "original"] = "raw"
    history: Annotated[int, Bounds(1, 100, zero=True)] = 0
    enlarge: Enlarge = 0.0
    workers: Workers = 0
    face_model: There | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        from crossfake.datasets.splits import Fractions

        check_bounds(self)
        Fractions.parse(self.split)
        self.cropper()  # checks crop, margin and filters
        self.named_labels()
        unused = [name for name in _ABOUT_FACES if name in self.filters()]
        if unused and not self.cropper().finds_faces:
            raise UserError(
                f"--crop {self.crop} looks for no faces", hint=f"leave --{unused[0].replace('_', '-')} out"
            )
        if self.codec == "original" and self.crop != "none":
            raise UserError("codec original keeps files as they are", hint="give --crop none with it")
        if self.codec == "original" and self.native:
            raise UserError("codec original keeps files, not pixels", hint="give --codec raw or webp")
        if self.shrink and not self.native:
            raise UserError(
                "--shrink is for native crops: aligned ones have one size", hint="give --pixels native"
            )
        if self.source == "toyfaces" and self.limit is None:
            raise UserError("toyfaces never ends", hint="say how many with --limit 5000")
        if self.source == "toyfaces" and self.cropper().finds_faces:
            raise UserError("toyfaces are drawn as crops already", hint="give --crop none")

    @property
    def native(self) -> bool:
        """Whether rows keep the pixels of their photo."""
        return self.pixels == "native"

    def cropper(self) -> Cropper:
        """What cuts the pictures."""
        from crossfake.datasets.crops import Cropper

        return Cropper(
            self.size,
            self.crop,
            self.margin,
            self.face_model,
            self.faces,
            self.enlarge,
            self.min_face,
            self.min_sharpness,
            self.max_yaw,
            self.min_confidence,
            self.edge or "",
            self.pixels,
            self.min_size,
        )

    @property
    def treatment(self) -> list[str]:
        """What every crop goes through, in order: part of the set's history."""
        smaller = [f"train and val shrunk to {self.shrink:g}-{LARGEST_SHARE:g}"] if self.shrink else []
        return smaller + ([f"jpeg {self.history} 4:2:0"] if self.history else [])

    def named_labels(self) -> dict[str, int]:
        """Names to labels, of :attr:`labels`."""
        from crossfake.datasets.sources.naming import parse_labels

        return parse_labels([self.labels] if isinstance(self.labels, str) else self.labels)

    def filters(self) -> dict[str, Any]:
        """What was left out on purpose, where anything was: part of the set's description, not of the crop's."""
        given = {
            "faces": (self.faces, "largest"),
            "min_face": (self.min_face, 0),
            "min_sharpness": (self.min_sharpness, 0.0),
            "max_yaw": (self.max_yaw, 90.0),
            "min_confidence": (self.min_confidence, 0.6),
            "only": (self.only, None),
            "variant": (self.variant, ""),
        }
        return {name: value for name, (value, default) in given.items() if value != default}


@dataclass(frozen=True)
class LaunderSettings:
    """Settings of :func:`launder`.

    Attributes:
        real: sources of real pictures; several may follow. They are what
            :func:`~crossfake.datasets.prepare.prepare` takes.
        fake: sources of fakes; several may follow.
        like: treat new data as an earlier laundering did: the same crop, size and quality. One class will do then.
        out: folder for the shards, real/ and fake/. Each source has its own below them.
        generator: what made the fakes: a name that you choose; 'folders' takes each sub-folder's
            [default: the source's name].
        size: height and width in pixels [default: chosen]. Native crops have their own; 0 chooses.
        quality: JPEG quality for everything [default: chosen]. 0 chooses.
        pixels: ``native``: resize nothing, compress everything alike.
        min_size: least side of native crops; others are left out.
        crop: how a photo becomes square.
        margin: side of the crop [default: 1.3 for faces]. 0 chooses one, the policy's own for native pixels.
        limit: pictures of each source.
        split: shares of train, val and test.
        workers: processes; 0 is one per core.
        face_model: YuNet's ONNX file.
        seed: for splits.
    """

    real: tuple[str, ...]
    fake: tuple[str, ...]
    out: Folder
    size: Annotated[int, Bounds(8, 4096, zero=True)] = 0
    quality: Annotated[int, Bounds(1, 100, zero=True)] = 0
    crop: CropPolicy = "face"
    margin: Annotated[float, Bounds(0.25, 6.5, zero=True)] = 0.0
    limit: Count | None = None
    split: str = "0.8/0.1/0.1"
    workers: Workers = 0
    face_model: There | None = None
    seed: Seed = 0
    like: There | None = None
    generator: Annotated[str, Option(metavar="NAME")] = ""
    pixels: PixelKind = "aligned"
    min_size: MinSize = MIN_SIZE

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.pixels == "native" and self.size:
            raise UserError("native crops keep their own size", hint="leave --size out")
        if self.like is not None:
            if not self.real and not self.fake:
                raise UserError("there is nothing new to treat alike", hint="give --real or --fake")
            if self.size or self.quality or self.margin:
                raise UserError(
                    f"size, quality and margin are those of {self.like}", hint="leave them or --like out"
                )
        elif not self.real or not self.fake:
            raise UserError(
                "laundering needs both classes",
                hint="give --real and --fake, or --like an earlier laundering",
            )


@dataclass(frozen=True)
class SplitSettings:
    """Settings of :func:`split` and :func:`check`.

    Attributes:
        folders: all data sets that are used together. One that is named twice counts once.
        split: shares of train, val and test.
        redeal: deal anew what was dealt before, and say which models that ends. Splits that a data set came with stay.
        radius: most differing bits, of 256, between near-duplicates. 0 links equal fingerprints only.
        embedding: name of a timm model whose features are compared too. None when empty.
        weights: its weights file [default: timm's own].
        cosine: least cosine of near-duplicates' features.
        fresh: those of the folders that nothing has learned from yet: where links join their rows, they go together
            instead of aside, and to where what they belong with is in the other folders.
        identities: keep together what a face recogniser takes for one person.
        identity_model: an ONNX file such as OpenCV's SFace [default: dlib's].
        identity_threshold: distance of dlib's or cosine of the ONNX file's, for any number of faces
            [default: as published or stricter].
        face_model: YuNet's ONNX file.
        workers: processes; 0 is one per core. They make fingerprints and find faces.
        seed: for the assignment.
    """

    folders: tuple[Shards, ...]
    split: str = "0.8/0.1/0.1"
    seed: Seed = 0
    radius: Annotated[int, Bounds(0, 64)] = RADIUS
    embedding: str = ""
    weights: There | None = None
    cosine: Annotated[float, Bounds(0.5, 1)] = 0.95
    redeal: bool = False
    fresh: tuple[Shards, ...] = ()
    identities: bool = False
    identity_model: Path | None = None
    identity_threshold: Annotated[float, Bounds(0, 1, above=True)] | None = None
    face_model: There | None = None
    workers: Workers = 0

    def __post_init__(self) -> None:
        from crossfake.datasets.splits import Fractions

        check_bounds(self)
        Fractions.parse(self.split)
        if not self.folders:
            raise UserError("there is nothing to split", hint="name shard folders")
        for name, value in (
            ("--identity-model", self.identity_model),
            ("--identity-threshold", self.identity_threshold),
        ):
            if value is not None and not self.identities:
                raise UserError(f"{name} is about faces", hint="give --identities with it")
