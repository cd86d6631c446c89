"""From a picture to squares: the crop policies, and the geometry of a face crop."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from crossfake.bounds import MOST, Bounds, check_bounds
from crossfake.datasets.decode import Copies, decode, decode_image
from crossfake.datasets.faces import GLANCE_SIDE, Face, find_faces, marked_face, mask_box, overlap, track
from crossfake.datasets.geometry import (
    ENLARGE_AT_MOST,
    FFHQ_MARGIN,
    OUTSIDE_AT_MOST,
    TOO_CLOSE,
    Skip,
    box_square,
    cut_square,
    cut_upright,
    drawn_mask,
    face_square,
    middle_square,
    outside,
    resize,
    room,
    rounded_box,
)
from crossfake.datasets.settings import (
    MIN_SIZE,
    Enlarge,
    MaxYaw,
    MinConfidence,
    MinFace,
    MinSharpness,
    MinSize,
)
from crossfake.datasets.template import Template
from crossfake.datasets.types import (
    Box,
    Pixels,
    Polygons,
)
from crossfake.errors import UserError
from crossfake.provenance import hash_file
from crossfake.weights import find_weights

POLICIES = ("face", "square", "center", "none")
WHICH = ("largest", "all", "mask")
PIXELS = ("aligned", "native")
EDGES = {"aligned": ("skip", "reflect"), "native": ("clip", "skip")}  # the first is the default
_SURE = 0.6  # YuNet's score from which on a face is one; lower only where less is asked for
_LARGE = 0.2
_SHOWS = 40  # pixels of a native crop in the small copy that faces are looked for in first: YuNet needs half as many
_SAME = 0.5  # two boxes that overlap so much are one face
SMALLER = "smaller than"  # how the reason begins for which a native crop is left out
GLANCE = 512  # a large JPEG may be decoded at 1/2, 1/4 or 1/8 down to this side


@dataclass(frozen=True)
class Crop:
    """One square: pixels, the mask cut alike where there is one, and which person of the picture it is.

    Attributes:
        box: the face's box as shares of the picture, x, y, width and height; None where no face was looked for.
        scale: pixels of the crop for one of the decoded picture, along a side; above 1 it was enlarged.
    """

    image: Pixels
    mask: Pixels | None = None
    person: int | None = None
    box: Box | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Cropper:
    """One crop policy, applied alike to real and fake, to training data and to a picture under judgement.

    Attributes:
        size: height and width of the result; 0 for native pixels, whatever is given.
        policy: ``face`` aligns a face, ``square`` cuts the upright square around one, ``center`` takes the central
            square, ``none`` takes the whole picture (one that is not square is squeezed).
        margin: side of a face crop relative to the face, 1.3 being FFHQ's framing; side of a central square relative
            to the largest one. 0 is the policy's own: 1.3 for faces, 1 for the others.
        face_model: YuNet's ONNX file; found by :func:`crossfake.weights.find_weights` when None.
        which: of several faces the ``largest``, ``all``, or the one under the data set's ``mask``. A face that the
            data set marks with a box is always the one that is meant.
        enlarge: how many times a crop may be enlarged; 0 is twice for faces, any times for the others.
        min_face: least side of a face's box, in pixels.
        min_sharpness: least :meth:`Face.sharpness`.
        max_yaw: most degrees that a head may be turned.
        min_confidence: least confidence of the face detector, which falls with occlusion.
        edge: where a quarter or more of a face crop would lie beyond the picture, ``skip`` it, or ``reflect`` the
            picture there. A face that is itself cut off is skipped in any case. Of native pixels ``clip`` keeps what
            of any crop lies within the picture, ``skip`` where that is three quarters. Empty is ``skip`` for aligned
            pixels, ``clip`` for native ones.
        pixels: ``aligned`` resamples a crop to ``size``, turned as the face is; ``native`` cuts the upright square at
            the picture's own pixels, for traces of a generator live in what resampling averages away.
        min_size: of native pixels, the least side of a crop.
        template: what faces are turned and scaled onto, as a detector made elsewhere was trained on them; ``face`` and
            ``native`` go with it, for the picture is not made smaller before.

    Example:
        >>> Cropper(size=8, policy="center")(np.zeros((20, 10, 3), np.uint8)).shape
        (8, 8, 3)
    """

    size: Annotated[int, Bounds(1, MOST, zero=True)]
    policy: str = "face"
    margin: Annotated[float, Bounds(0.25, 6.5, zero=True)] = 0.0
    face_model: Path | None = None
    which: str = "largest"
    enlarge: Enlarge = 0.0
    min_face: MinFace = 0
    min_sharpness: MinSharpness = 0.0
    max_yaw: MaxYaw = 90.0
    min_confidence: MinConfidence = _SURE
    edge: str = ""
    pixels: str = "aligned"
    min_size: MinSize = MIN_SIZE
    template: Template | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        for kind, value, known in (
            ("kind of pixels", self.pixels, PIXELS),
            ("crop policy", self.policy, POLICIES),
            ("choice of faces", self.which, WHICH),
            ("choice of edges", self.edge or "skip", ("skip", "reflect", "clip")),
        ):
            if value not in known:
                raise UserError(f"there is no {kind} {value!r}", hint=f"choose one of {', '.join(known)}")
        default, other = EDGES[self.pixels]
        if self.edge not in ("", default, other):
            raise UserError(
                f"--edge {self.edge} is not for {self.pixels} pixels", hint=f"choose {default} or {other}"
            )
        if self.template and not (self.policy == "face" and self.native):
            raise UserError("only native faces are turned onto a template", hint="leave the template out")
        if self.edge not in ("", default) and not self.finds_faces:
            raise UserError(f"--crop {self.policy} stays within the picture", hint="leave --edge out")
        object.__setattr__(self, "edge", self.edge or default)
        if self.native:
            object.__setattr__(self, "size", 0)
        elif not self.size:
            raise UserError("--size 0 is out of range", hint="give a whole number above 0")
        if self.margin == 0.0:
            object.__setattr__(self, "margin", FFHQ_MARGIN if self.finds_faces else 1.0)
        largest = {"center": 1.0, "none": 1.0}.get(self.policy, 6.5)
        if not (0.25 if self.policy != "none" else 1.0) <= self.margin <= largest:
            raise UserError(
                f"a margin of {self.margin} is out of range for --crop {self.policy}",
                hint="leave --margin out"
                if self.policy == "none"
                else f"give --margin between 0.25 and {largest:g}",
            )

    @property
    def native(self) -> bool:
        """Whether rows keep the pixels of their photo, in sizes of their own."""
        return self.pixels == "native"

    @property
    def finds_faces(self) -> bool:
        """Whether a face detector is needed."""
        return self.policy in ("face", "square")

    def description(self, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """What two sets must have in common to be comparable: stored with shards and detectors.

        Args:
            before: description of the crop that the images went through already. The centre of aligned faces is
                a face crop of a smaller margin, and said to be one.
        """
        own = {"pixels": "native", "min_size": self.min_size} if self.native else {}
        if self.finds_faces:
            found = {"policy": self.policy, "margin": self.margin, "detector": hash_file(self.model)[:16]}
            if self.native:
                found |= {"template": self.template.description()} if self.template else {}
                return found | ({"edge": "skip"} if self.edge == "skip" else {}) | own
            # named only where it differs: sets and bundles of before there was a choice are of the other kind;
            # edges that were mirrored once stay in the pixels
            return found | (
                {"edge": "reflect"} if "reflect" in (self.edge, (before or {}).get("edge")) else {}
            )
        if before is not None and (self.policy == "none" or before.get("policy") in ("face", "square")):
            kept = {name: value for name, value in before.items() if name not in ("pixels", "min_size")}
            if "margin" in kept:
                kept["margin"] = round(kept["margin"] * self.margin, 6)
            return kept | own
        return {"policy": self.policy} | ({"margin": self.margin} if self.margin != 1 else {}) | own

    @classmethod
    def from_description(cls, size: int, crop: dict[str, Any], face_model: Path | None = None) -> Cropper:
        """The policy that :meth:`description` stored."""
        policy, margin = str(crop.get("policy", "none")), float(crop.get("margin", 0.0))
        return cls(
            size,
            policy,
            margin,
            face_model,
            edge=str(crop.get("edge", "")),
            pixels=str(crop.get("pixels", "aligned")),
            min_size=int(crop.get("min_size", MIN_SIZE)),
            template=Template.of_description(crop.get("template")),
        )

    def __call__(self, image: Pixels) -> Pixels:
        """The crop of one face: uint8 ``[H, W, 3]`` to uint8 ``[size, size, 3]``, or ``[h, w, 3]`` of native pixels.

        Raises:
            Skip: there is no face, it would have to be enlarged too much or is too small, or the picture ends too
                close to it.
        """
        return self.crops(image)[0].image

    def open(self, source: Path | bytes) -> Pixels:
        """The crop of a file or its bytes; of a large JPEG no more is decoded than the crop needs.

        Raises:
            Skip: as when called with pixels.
            UserError: the file cannot be read.
        """
        return self.crops_of(source, decode_image(source, at_least=GLANCE))[0].image

    def crops_of(
        self,
        source: Path | bytes | Copies,
        glance: Pixels,
        box: Box | None = None,
        mask: Pixels | Polygons | None = None,
    ) -> list[Crop]:
        """As :meth:`crops`, of a file of which ``decode_image(source, at_least=GLANCE)`` gave a glance already."""
        if min(glance.shape[:2]) < GLANCE:  # so it was not reduced
            return self.crops(glance, box, mask)
        # the smallest face and native pixels count in pixels of the whole picture, as boxes and masks do
        if box is None and mask is None and not self.min_face and not self.native:
            enough = max(GLANCE, 4 * self.size)
            reduced = glance if min(glance.shape[:2]) >= enough else decode_image(source, at_least=enough)
            try:
                return self.crops(reduced, enlarge=1.0)
            except Skip:
                pass
        whole = decode(source)
        if self.native and whole.scale != 1:
            raise Skip("too large to be decoded without shrinking it")
        if box is not None:  # in pixels of the file
            box = tuple(value * whole.scale for value in box)  # type: ignore[assignment]
        return self.crops(whole.pixels, box, mask)

    def each_face(self, source: Path | bytes | Copies, glance: Pixels) -> list[tuple[Box, Crop | Skip]]:
        """Every face of a file: its box as shares of the picture, and its crop or why there is none.

        Args:
            source: the file, its bytes or its copies; in these each picture is searched once, whoever asks.
            glance: ``decode_image(source, at_least=GLANCE)``.

        Returns:
            the largest face first, whose crop is the one that :meth:`open` makes; empty when there is no face.
        """
        enough = max(GLANCE, 4 * self.size)
        reduced = min(glance.shape[:2]) >= GLANCE
        if not reduced or self.native:
            return self._each(decode_image(source) if reduced else glance, None, source)
        if min(glance.shape[:2]) < enough:
            glance = decode_image(source, at_least=enough)
        found = self._each(glance, 1.0, source)
        if found and not any(isinstance(crop, Skip) for _, crop in found):
            return found
        kept = [(box, crop) for box, crop in found if isinstance(crop, Crop)]
        more = self._each(
            decode_image(source), None, source
        )  # only the whole picture shows small faces well enough
        more = [(box, crop) for box, crop in more if all(overlap(box, other) < _SAME for other, _ in kept)]
        return sorted([*kept, *more], key=lambda pair: -pair[0][2] * pair[0][3])

    def _each(
        self, image: Pixels, enlarge: float | None, source: Path | bytes | Copies
    ) -> list[tuple[Box, Crop | Skip]]:
        # where every face that is large enough to be cut shows in the smaller copy, one look does
        once = self.native and self.min_size * GLANCE_SIDE >= _SHOWS * max(image.shape[:2])
        faces = self._faces(image, once, source)
        if not once and faces and faces[0].side > _LARGE * max(image.shape[:2]):
            # a large face is looked for in a smaller copy when it is the only one wanted, and its landmarks differ
            main = self._faces(image, True, source)[0]
            faces = [main, *(face for face in faces if overlap(face.box, main.box) < _SAME)]
        found: list[tuple[Box, Crop | Skip]] = []
        for face in faces:
            crop: Crop | Skip
            try:
                self._check(face, image)
                crop = self.cut(image, face, enlarge=enlarge)
            except Skip as reason:
                crop = reason
            found.append((_shares(face.box, image), crop))
        return found

    def crops(
        self,
        image: Pixels,
        box: Box | None = None,
        mask: Pixels | Polygons | None = None,
        enlarge: float | None = None,
    ) -> list[Crop]:
        """Every crop that the policy makes of one picture; never none.

        Args:
            image: uint8 ``[H, W, 3]``.
            box: the face that is meant.
            mask: polygons, or uint8 ``[H', W', 3]`` that is bright where the picture was manipulated.
            enlarge: in place of the policy's own limit.

        Raises:
            Skip: no face is left; the reason is the largest one's.
        """
        drawn = drawn_mask(mask, image)
        if box is not None and not self.finds_faces:  # then the marked face is the picture
            left, top, right, bottom = rounded_box(box, image)
            image, drawn = (
                image[top:bottom, left:right],
                None if drawn is None else drawn[top:bottom, left:right],
            )
        found, reasons, person = [], [], 0
        for face in self.choose(image, box, drawn):
            try:
                if face is not None:
                    self._check(face, image)
                    person += 1
                number = person - 1 if self.which == "all" and box is None and face else None
                found.append(self.cut(image, face, drawn, number, enlarge))
            except Skip as reason:
                reasons.append(reason)
        if not found:
            raise reasons[0]
        return found

    def _faces(
        self, image: Pixels, largest_only: bool = False, source: Path | bytes | Copies = b""
    ) -> list[Face]:
        threshold = min(_SURE, self.min_confidence)
        if not isinstance(source, Copies):
            return find_faces(image, self.model, threshold=threshold, largest_only=largest_only)
        key = ("faces", id(image), self.model, threshold, largest_only)  # the copies keep the image alive
        if key not in source.remembered:
            source.remembered[key] = find_faces(
                image, self.model, threshold=threshold, largest_only=largest_only
            )
        found: list[Face] = source.remembered[key]
        return found

    def of_video(
        self, frames: Iterable[tuple[int, Pixels, Pixels | None]]
    ) -> Iterator[tuple[int, Crop | Skip]]:
        """Crops of a video's frames: (frame number, pixels, mask or None) to (frame number, crop or why there is none).

        Faces are followed through the frames. ``largest`` is the person who covers most area in all, so that the
        crop does not jump between two people; with ``all``, ``person`` stays the same through the video. Frames are
        let go one by one, only their crops are kept until the end.
        """
        if not self.finds_faces:
            for number, image, mask in frames:
                yield number, self._cut_or_skip(image, None, mask)
            return
        numbers: list[int] = []
        shape: tuple[int, ...] = ()
        seen: list[list[Face]] = []
        cuts: list[list[Crop | Skip]] = []
        for number, image, mask in frames:
            drawn = drawn_mask(mask, image)
            marked = mask_box(drawn) if self.which == "mask" and drawn is not None else None
            faces = self._faces(image)
            face = marked_face(faces, marked) if marked else None
            faces = [face] if face else faces
            numbers.append(number)
            shape = shape or image.shape
            seen.append([_as_in(shape, face, image) for face in faces])
            cuts.append([self._cut_or_skip(image, face, drawn) for face in faces] or [Skip("no face", image)])
        people = track(seen)
        areas: dict[int, float] = {}
        for faces, persons in zip(seen, people, strict=True):
            for face, person in zip(faces, persons, strict=True):
                areas[person] = areas.get(person, 0.0) + face.box[2] * face.box[3]
        main = max(areas, key=lambda person: areas[person], default=-1)
        for number, crops, persons in zip(numbers, cuts, people, strict=True):
            wanted = [
                (person, crop)
                for person, crop in sorted(zip(persons, crops, strict=False), key=lambda pair: pair[0])
                if self.which == "all" or person == main or (self.which == "mask" and len(persons) == 1)
            ]
            if not wanted:  # no face, or only the faces of others
                yield number, crops[0] if isinstance(crops[0], Skip) else Skip("no face")
            for person, crop in wanted:
                if self.which == "all" and isinstance(crop, Crop):
                    crop = dataclasses.replace(crop, person=person)
                yield number, crop

    def _cut_or_skip(self, image: Pixels, face: Face | None, mask: Pixels | None) -> Crop | Skip:
        try:
            if face is not None:
                self._check(face, image)
            return self.cut(image, face, drawn_mask(mask, image))
        except Skip as reason:
            return Skip(str(reason), image, reason.room)

    def choose(self, image: Pixels, box: Box | None, mask: Pixels | None) -> list[Face | None]:
        """The faces to cut, the largest first and never none; one None for a policy that looks for none.

        Raises:
            Skip: there is no face.
        """
        if not self.finds_faces:
            return [None]
        one = self.which == "largest" and box is None
        faces: Sequence[Face] = self._faces(image, largest_only=one)
        if box is None and self.which == "mask" and mask is not None:
            box = mask_box(mask)
        if box is not None:
            meant = marked_face(faces, box)
            if meant is None and self.policy == "square":
                meant = Face(np.full((5, 2), np.nan), box)  # the square needs no landmarks
            faces = [meant] if meant else []
        elif self.which != "all":
            faces = faces[:1]
        if not faces:
            raise Skip("no face" if box is None else "no face where one is marked")
        return list(faces)

    def _check(self, face: Face, image: Pixels) -> None:
        if face.side < self.min_face:
            raise Skip("face too small")
        if self.max_yaw < 90 and not abs(face.yaw) <= self.max_yaw:
            raise Skip("face turned away")
        if face.confidence < self.min_confidence:
            raise Skip("face hidden or unclear")
        if self.min_sharpness and face.sharpness(image) < self.min_sharpness:
            raise Skip("face blurred")

    def cut(
        self,
        image: Pixels,
        face: Face | None,
        mask: Pixels | None = None,
        person: int | None = None,
        enlarge: float | None = None,
    ) -> Crop:
        """Cut one face, or the square of a policy without faces, out of a picture and its mask of the same size.

        Native crops have no mask, unless they are turned onto a template.
        """
        if self.template and face is not None:
            turned, scale = self.template.cut(image, face.points, self.margin)
            marked = None if mask is None else self.template.cut(mask, face.points, self.margin)[0]
            return Crop(turned, marked, person, _shares(face.box, image), scale)
        if self.native:
            own = np.ascontiguousarray(
                self._own_pixels(image, face)
            )  # the picture's memory is not kept for it
            return Crop(own, None, person, None if face is None else _shares(face.box, image))
        if face is None:
            scale = self.size / max(1.0, self.side(image, None))
            return Crop(self._whole(image), None if mask is None else self._whole(mask), scale=scale)
        if self.edge == "reflect" and self._is_cut_off(face, image):
            raise Skip(TOO_CLOSE)
        square = self._square(face)
        limit = enlarge or self.enlarge or ENLARGE_AT_MOST
        return Crop(
            cut_square(image, *square, self.size, limit, self.edge),
            None if mask is None else cut_square(mask, *square, self.size, limit, self.edge),
            person,
            _shares(face.box, image),
            self.size / (2 * float(np.hypot(*square[1]))),
        )

    def _own_pixels(self, image: Pixels, face: Face | None) -> Pixels:
        """The part of a picture that a native crop is, as a view of it."""
        if face is None:
            part = middle_square(image, self.margin) if self.policy == "center" else image
        else:
            center, half = self._square(face)
            part = cut_upright(image, center, half)
            if self.edge == "skip" and outside(image, center, half) > OUTSIDE_AT_MOST:
                wide = room(image, center, half)
                raise Skip(TOO_CLOSE, room=wide if 2 * np.hypot(*half) * wide >= self.min_size else 0.0)
        if min(part.shape[:2]) < self.min_size:
            raise Skip(f"{SMALLER} {self.min_size} pixels")
        return part

    def side(self, image: Pixels, face: Face | None) -> float:
        """How many pixels of a picture the crop of a face covers, along one side, before it is scaled.

        Raises:
            Skip: the picture ends too close to the face.
        """
        if face is None:
            return float(min(image.shape[:2]) * self.margin)
        center, half = self._square(face)
        if self.edge == "skip" and outside(image, center, half) > OUTSIDE_AT_MOST:
            raise Skip(TOO_CLOSE)
        return 2 * float(np.hypot(*half))

    @staticmethod
    def _is_cut_off(face: Face, image: Pixels) -> bool:
        """Whether an eye, the nose or a corner of the mouth lies beyond the picture: mirrors would invent it."""
        return bool(((face.points < 0) | (face.points > image.shape[1::-1])).any())

    def _square(self, face: Face) -> tuple[Any, Any]:
        if self.policy == "square":
            return box_square(face.box, self.margin)
        return face_square(face.points, self.margin)

    def _whole(self, image: Pixels) -> Pixels:
        if self.policy == "center":
            image = middle_square(image, self.margin)
        if self.enlarge and min(image.shape[:2]) * self.enlarge < self.size:
            raise Skip("picture too small")
        return resize(image, self.size)

    @cached_property
    def model(self) -> Path:
        """File of the face detector.

        Raises:
            UserError: it is neither given nor in any place for weights.
        """
        return find_weights("yunet", self.face_model)


def _as_in(shape: tuple[int, ...], face: Face, image: Pixels) -> Face:
    """A face with its box as in a picture of another shape: a stream may change its size, and people stay the same."""
    if image.shape == shape:
        return face
    x, y, width, height = _shares(face.box, image)
    return dataclasses.replace(face, box=(x * shape[1], y * shape[0], width * shape[1], height * shape[0]))


def crop_words(crop: Any) -> str:
    """A crop's :meth:`~Cropper.description` as the options that make it.

    Example:
        >>> crop_words({"policy": "face", "margin": 1.3, "detector": "8f2383e4dd3cfbb4"})
        '--crop face --margin 1.3 (YuNet 8f2383e4)'
        >>> crop_words({"policy": "center"}), crop_words(None)
        ('--crop center', 'nothing that is recorded')
    """
    if not isinstance(crop, dict) or "policy" not in crop:
        return str(crop) if crop else "nothing that is recorded"
    crop = {**crop, "template": "of five landmarks"} if "template" in crop else crop
    names = {
        "policy": "crop",
        "margin": "margin",
        "edge": "edge",
        "pixels": "pixels",
        "min_size": "min-size",
    }
    words = [f"--{option} {crop[name]}" for name, option in names.items() if name in crop]
    words += [f"(YuNet {str(crop['detector'])[:8]})"] if crop.get("detector") else []
    return " ".join(
        [*words, *(f"{name} {value}" for name, value in crop.items() if name not in {*names, "detector"})]
    )


def _shares(box: Box, image: Pixels) -> Box:
    height, width = image.shape[:2]
    x, y, w, h = map(float, box)
    return x / width, y / height, w / width, h / height
