"""One person in several data sets: faces that a recogniser takes for the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist

from crossfake.datasets.faces import Face, find_faces
from crossfake.datasets.fingerprints import Pairs, kept_beside
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.errors import MissingDependency, UserError
from crossfake.images import captioned_sheet, save_png, thumbnail
from crossfake.progress import tqdm
from crossfake.provenance import hash_file
from crossfake.weights import find_weights
from crossfake.workers import map_in_order

CACHE, SHEET = "identities.npz", "identities.png"
DLIB_DISTANCE = 0.6  # dlib.net/face_recognition.py: closer pairs are one person
SFACE_COSINE = 0.363  # OpenCV's FaceRecognizerSF: pairs of a higher cosine are one person
_DLIB_FILES = ("shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat")
# Where dlib's own detector would put its square around a face, in heights of YuNet's box (medians of 200 photos): the
# landmarks are found from there.
_SQUARE, _LOWER = 0.81, 0.064
_SIDE = 320  # pixels: dlib's landmarks are whole numbers, so that small crops are enlarged first
_ROWS = 64  # images per task
_NEAREST = 100  # faces that each face is compared with further
_STRANGERS = 0.02  # of another person, that may be taken for a face's own, on average
_LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the published distance
_NEARLY_ALL, _SILHOUETTE = 0.95, 0.3
_AT_ONCE = 2000  # rows of one group that are clustered together
_SHOWN, _TILE = 24, 128  # pairs on the sheet; pixels

Features = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recogniser:
    """A face recogniser and how near two faces of one person are.

    Attributes:
        name: what to call it.
        files: its model files: dlib's two, or one ONNX file.
        yunet: the face detector's file.
        limit: the Euclidean distance below which two photos are of one person.
        fixed: the user has chosen the limit: it holds however many faces are compared.
    """

    name: str
    files: tuple[Path, ...]
    yunet: Path
    limit: float
    fixed: bool = False

    @classmethod
    def find(
        cls, model: Path | None = None, threshold: float | None = None, face_model: Path | None = None
    ) -> Recogniser:
        """dlib's recogniser (Euclidean distances), or that of an ONNX file (cosines) made as OpenCV's SFace is.

        Args:
            model: the ONNX file: it takes an aligned RGB face ``[1, 3, 112, 112]`` in 0 to 255 and gives a vector.
            threshold: another one than was published: a distance for dlib, a cosine for a file.
            face_model: YuNet's ONNX file.

        Raises:
            UserError: a file or package is missing, or the threshold makes no sense.
        """
        if model is None:
            if threshold is not None and not 0 < threshold <= 1:
                raise UserError(
                    f"--identity-threshold {threshold} is no distance of dlib's",
                    hint=f"give one above 0 and up to 1; {DLIB_DISTANCE} is as published",
                )
            limit = DLIB_DISTANCE if threshold is None else threshold
            return cls("dlib", _dlib_files(), find_weights("yunet", face_model), limit, threshold is not None)
        if not model.is_file():
            raise UserError(f"the recogniser {model} is not there", hint="check --identity-model")
        if threshold is None and "sface" not in model.name.lower():
            raise UserError(
                f"{model.name} is not known to be SFace, whose threshold is published",
                hint="give the least cosine of one person's faces with --identity-threshold",
            )
        if threshold is not None and not 0 < threshold < 1:
            raise UserError(f"--identity-threshold {threshold} is no cosine", hint="give one between 0 and 1")
        limit = float(np.sqrt(2 - 2 * (SFACE_COSINE if threshold is None else threshold)))
        return cls(
            model.name, (model.resolve(),), find_weights("yunet", face_model), limit, threshold is not None
        )

    def open(self) -> _Dlib | _Onnx:
        """The model, loaded once per process."""
        return _opened(self.name, self.files)

    @property
    def key(self) -> str:
        """What features depend on."""
        return " ".join(hash_file(file) for file in (*self.files, self.yunet))

    @property
    def published(self) -> str:
        """The threshold in its own words."""
        if self.name == "dlib":
            return f"distance {self.limit:g}"
        return f"cosine {1 - self.limit**2 / 2:.3g}"


@dataclass(frozen=True)
class Joins:
    """Faces that are taken for one person's, though nothing else says that they belong together.

    Attributes:
        pairs: rows int64 ``[P, 2]``, the least certain first.
        distances: of the pairs, float64 ``[P]``.
        limits: the distance that each pair had to stay below, float64 ``[P]``.
        largest: groups that the largest person's joins bring together.
        recognised: rows in which a face was found.
        rows: all of them.
        faces: that were compared: one for each person of each group.
        published: faces that the recogniser's own threshold would join, and how many of them into one group.
        recogniser: which one.
    """

    pairs: Pairs
    distances: Reals
    limits: Reals
    largest: int
    recognised: int
    rows: int
    faces: int
    published: tuple[int, int]
    recogniser: Recogniser

    def only(self, chosen: npt.NDArray[np.bool_]) -> Joins:
        """These joins alone."""
        return replace(
            self,
            pairs=self.pairs[chosen],
            distances=self.distances[chosen],
            limits=self.limits[chosen],
        )

    def text(self) -> str:
        """One or two lines that say what was joined, and why not more."""
        name, unseen = self.recogniser.name, self.rows - self.recognised
        lines = [
            f"faces: {self.recognised:,} of {self.rows:,} pictures"
            + (f" ({unseen:,} show none that was found)" if unseen else "")
            + f"; {name} joined {len(self.pairs):,} pairs of groups as one person's"
            + (f", at most {self.largest:,} groups" if len(self.pairs) else "")
        ]
        if not self.recogniser.fixed and self.published[1] > self.largest:
            lines.append(
                f"the published threshold ({self.recogniser.published}) is for comparing two photos: among "
                f"{self.faces:,} it would put {self.published[1]:,} into one group, strangers included. So a pair had "
                "to stand out from what strangers are like here"
            )
        return "\n".join(lines)


def recognise(shards: ShardSet, recogniser: Recogniser, workers: int = 0) -> Features:
    """Features of the largest face of every row, float32 ``[N, D]``, NaN where none is found.

    They are kept in the folder, and computed anew when its shards or the recogniser change.

    Args:
        shards: the folder.
        recogniser: the model.
        workers: processes; 0 is one per core.
    """

    def compute() -> Features:
        blocks = [range(start, min(start + _ROWS, len(shards))) for start in range(0, len(shards), _ROWS)]
        work = partial(_of_rows, shards=shards, recogniser=recogniser)
        found = []
        with tqdm(total=len(shards), unit="img", desc=f"faces {shards.path.name}", leave=False) as bar:
            for block, part in map_in_order(work, blocks, workers if len(blocks) > 4 else 1):
                found.append(part)
                bar.update(len(block))
        return np.concatenate(found)

    features: Features = kept_beside(shards, CACHE, "features", compute, recogniser.key)
    return features


def join(features: Features, groups: npt.NDArray[np.int64], recogniser: Recogniser) -> Joins:
    """Which groups hold the same person.

    Each group is first reduced to one face for each person in it. The published threshold is for comparing one pair:
    among N faces there are N²/2, and enough pairs of strangers fall below it to chain all faces into one group. So a
    pair has to be closer than strangers are likely to be. A face's neighbours thin out towards it as a power of the
    distance (Levina and Bickel 2004, "Maximum likelihood estimation of intrinsic dimension"), so its hundredth nearest,
    which is a stranger's, tells at which distance fewer than one stranger in fifty is left. Both faces of a pair have
    to agree, and no limit is above the published threshold.

    Where rows are many photos of few people, the hundredth nearest is no stranger. So faces that are linked within the
    published threshold, or a stricter one, are also one person's if nearly all of their pairs are within the published
    threshold and others keep away: they are further by half (silhouette, Rousseeuw 1987).

    Args:
        features: float32 ``[N, D]``, NaN where there is no face.
        groups: int64 ``[N]``, what is known to belong together.
        recogniser: whose features these are.
    """
    rows = _one_of_each(features, groups, recogniser.limit)
    faces = features[rows]
    seen = int(np.isfinite(features[:, 0]).sum())
    nearest = min(_NEAREST, max(1, len(rows) // 2))
    if len(rows) < 2:
        none = np.zeros(0)
        return Joins(
            np.zeros((0, 2), np.int64), none, none, 1, seen, len(features), len(rows), (0, 1), recogniser
        )
    distances, others = _neighbours(faces, nearest)
    one = np.repeat(np.arange(len(rows)), nearest)
    other, apart = others.ravel(), distances.ravel()
    foreign = groups[rows[one]] != groups[rows[other]]

    def components(bound: Reals) -> npt.NDArray[np.int64]:
        """Which faces are linked by pairs within the bound: a number for each."""
        close = foreign & (apart <= bound)
        links = coo_matrix((close[close], (one[close], other[close])), shape=(len(rows), len(rows)))
        return np.asarray(connected_components(links, directed=False)[1], np.int64)

    bound = np.full(len(one), recogniser.limit)
    chained = np.bincount(components(bound))
    if not recogniser.fixed:
        careful = _limits(distances, recogniser.limit)
        bound = np.minimum(careful[one], careful[other])
        for level in _LEVELS:
            within = level * recogniser.limit
            people = components(np.full(len(one), within))
            own = np.array(
                [_keeps_away(m, faces, distances, others, recogniser.limit) for m in _members(people)]
            )
            bound = np.where(own[people[one]], np.maximum(bound, within), bound)
    close = np.flatnonzero(foreign & (apart <= bound))
    ends = np.sort(np.stack([one[close], other[close]], axis=1), axis=1)
    pairs, first = np.unique(ends, axis=0, return_index=True)
    at = close[first]
    order = np.argsort(-(apart[at] / bound[at]), kind="stable")
    return Joins(
        np.sort(rows[pairs[order]], axis=1),
        apart[at][order],
        bound[at][order],
        int(np.bincount(components(bound)).max()),
        seen,
        len(features),
        len(rows),
        (int(chained[chained > 1].sum()), int(chained.max())),
        recogniser,
    )


def draw_joins(
    joins: Joins, read: Callable[[int], Pixels], name: Callable[[int], str], folder: Path
) -> Path | None:
    """The least certain joins as a PNG in ``folder``: pictures in pairs, with distance, limit and names.

    None when there are none, or the folder cannot be written.
    """
    if not len(joins.pairs):
        return None
    pictures, captions = [], []
    for pair, distance, limit in zip(
        joins.pairs[:_SHOWN].tolist(), joins.distances, joins.limits, strict=False
    ):
        pictures.append(np.concatenate([thumbnail(read(row), _TILE) for row in pair], axis=1))
        names = "  ".join(name(row).rpartition("/")[2][-14:] for row in pair)
        captions.append(f"{distance:.2f} of {limit:.2f}  {names}")
    file = folder / SHEET
    try:
        save_png(captioned_sheet(np.stack(pictures), captions, columns=min(4, len(pictures))), file)
    except UserError:
        return None
    return file


def _limits(distances: Reals, published: float) -> Reals:
    """The distance within which each face has few strangers, float64 ``[N]``, by those of its nearest ``[N, K]``."""
    nearest = distances.shape[1]
    ranks = np.arange(1, nearest)
    # of a power law, rank times the logarithm of the ratio to the next is exponential, its mean 1 / dimension
    ratios = np.log(np.maximum(distances[:, 1:], 1e-6) / np.maximum(distances[:, :-1], 1e-6))
    spacings = (ranks * ratios)[:, nearest // 4 :]
    typical = float(np.median(spacings)) if spacings.size else 1.0
    dimension = np.log(2) / max(typical, 1e-3)
    limits: Reals = np.minimum(distances[:, -1] * (_STRANGERS / nearest) ** (1 / dimension), published)
    return limits


def _members(people: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The faces of each component."""
    order = np.argsort(people, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(people[order])) + 1)


def _keeps_away(
    members: npt.NDArray[np.int64],
    faces: Features,
    distances: Reals,
    others: npt.NDArray[np.int64],
    limit: float,
) -> bool:
    """Whether these faces are near each other, and further from all others."""
    if len(members) < 2:
        return False
    some = members[np.unique(np.linspace(0, len(members) - 1, 200).astype(int))]
    if len(some) > 2 and float((pdist(faces[some]) <= limit).mean()) < _NEARLY_ALL:
        return False
    if 2 * len(members) <= distances.shape[1]:  # the lists of the nearest know enough
        apart, inside = distances[members], np.isin(others[members], members)
        missing = (len(members) - 1 - inside.sum(axis=1)) * distances[members, -1]
        to_own = (np.where(inside, apart, 0).sum(axis=1) + missing) / (len(members) - 1)
    else:
        some = some[::4]
        apart, inside = cdist(faces[some], faces), np.zeros((len(some), len(faces)), bool)
        inside[:, members] = True
        to_own = apart[:, members].sum(axis=1) / (len(members) - 1)
    foreign = np.sort(np.where(inside, np.inf, apart), axis=1)[:, : len(members) - 1]
    known = np.isfinite(foreign)
    if not known.any():
        return True  # there is nobody else
    to_others = np.where(known, foreign, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    silhouettes = (to_others - to_own) / np.maximum(np.maximum(to_others, to_own), 1e-9)
    return float(silhouettes.mean()) >= _SILHOUETTE


def _neighbours(faces: Features, count: int) -> tuple[Reals, npt.NDArray[np.int64]]:
    """Distances of each face's nearest others and which they are, ``[N, count]``: all pairs, in blocks."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(faces)
    distances, others = index.kneighbors()  # of the faces themselves, each without itself
    return distances.astype(np.float64), others.astype(np.int64)


def _one_of_each(features: Features, groups: npt.NDArray[np.int64], limit: float) -> npt.NDArray[np.int64]:
    """Rows that stand for their group: for each person in it, the face in the middle of that person's."""
    from sklearn.cluster import AgglomerativeClustering

    seen = np.flatnonzero(np.isfinite(features[:, 0]))
    order = seen[np.argsort(groups[seen], kind="stable")]
    chosen: list[int] = []
    for members in (order[part] for part in _members(groups[order])):
        if len(members) == 1:
            chosen.append(int(members[0]))
            continue
        for start in range(0, len(members), _AT_ONCE):
            part = members[start : start + _AT_ONCE]
            people = np.zeros(len(part), np.int64)
            if len(part) > 1 and len(_middle(features[part], limit)[1]) < len(part):
                people = AgglomerativeClustering(
                    n_clusters=None, distance_threshold=limit, linkage="average"
                ).fit_predict(features[part])
            for person in range(int(people.max(initial=-1)) + 1):
                own = part[people == person]
                chosen.append(int(own[_middle(features[own], limit)[0]]))
    return np.array(sorted(chosen), np.int64)


def _middle(faces: Features, limit: float) -> tuple[int, npt.NDArray[np.int64]]:
    """The face nearest to the mean, and those that are within the limit of it."""
    middle = int(np.linalg.norm(faces - faces.mean(axis=0), axis=1).argmin())
    return middle, np.flatnonzero(np.linalg.norm(faces - faces[middle], axis=1) <= limit)


def _of_rows(rows: Sequence[int], shards: ShardSet, recogniser: Recogniser) -> Features:
    model = recogniser.open()
    features = np.full((len(rows), model.width), np.nan, np.float32)
    for place, row in enumerate(rows):
        image = shards.read(row)
        if max(image.shape[:2]) < _SIDE:
            scale = _SIDE / max(image.shape[:2])
            image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
        if faces := find_faces(image, recogniser.yunet, largest_only=True):
            features[place] = model.describe(image, faces[0])
    return features


@lru_cache(maxsize=1)
def _opened(name: str, files: tuple[Path, ...]) -> _Dlib | _Onnx:
    return _Dlib(*files) if name == "dlib" else _Onnx(*files)


class _Dlib:
    """dlib's ResNet, 128-d, and its predictor of five landmarks."""

    width = 128

    def __init__(self, landmarks: Path, network: Path) -> None:
        import dlib

        self._rectangle, self._chip = dlib.rectangle, dlib.get_face_chip
        self._landmarks: Any = dlib.shape_predictor(str(landmarks))
        self._network: Any = dlib.face_recognition_model_v1(str(network))

    def describe(self, image: Pixels, face: Face) -> Features:
        x, y, width, height = face.box
        middle = x + width / 2, y + height * (0.5 + _LOWER)
        half = height * _SQUARE / 2
        edges = [round(at + side * half) for side in (-1, 1) for at in middle]
        points = self._landmarks(image, self._rectangle(*edges))
        return np.array(self._network.compute_face_descriptor(self._chip(image, points)), np.float32)


class _Onnx:
    """An ONNX file through OpenCV's FaceRecognizerSF, which aligns the face by YuNet's landmarks."""

    def __init__(self, file: Path) -> None:
        try:
            self._model = cv2.FaceRecognizerSF.create(str(file), "")
            self.width = int(self._model.feature(np.zeros((112, 112, 3), np.uint8)).size)
        except cv2.error as error:
            raise UserError(
                f"{file} is no face recogniser that takes 112×112 pixels",
                hint="give another --identity-model",
            ) from error

    def describe(self, image: Pixels, face: Face) -> Features:
        found = np.array([[*face.box, *face.points.ravel(), face.confidence]], np.float32)
        aligned = self._model.alignCrop(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), found)
        vector = np.asarray(self._model.feature(aligned), np.float32).ravel()
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _dlib_files() -> tuple[Path, ...]:
    """The files of face_recognition_models, found without importing it: that wants setuptools' pkg_resources."""
    models = importlib.util.find_spec("face_recognition_models")
    if importlib.util.find_spec("dlib") is None or models is None:
        missing = "dlib-bin" if models is not None else "face-recognition-models"
        raise MissingDependency(missing, extra="identity")
    (folder, *_) = models.submodule_search_locations or [""]
    return tuple(Path(folder) / "models" / name for name in _DLIB_FILES)
