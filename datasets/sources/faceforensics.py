"""FaceForensics++ (Rössler et al. 2019), with FaceShifter and Google's DeepFakeDetection."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.faceforensics_pairs import PAIRS
from crossfake.datasets.sources.folder import named_video, subfolders, walk
from crossfake.errors import UserError

METHODS = ("DeepFakeDetection", "Deepfakes", "Face2Face", "FaceShifter", "FaceSwap", "NeuralTextures")
_SPLITS = ("train", "val", "test")
_ACTOR = "actor"


@SOURCES.register("faceforensics")
class FaceForensics(Source):
    """``original_sequences/{youtube,actors}/C/videos/000.mp4``, ``manipulated_sequences/METHOD/C/videos/000_003.mp4``.

    C is the compression: ``raw``, ``c0``, ``c23`` or ``c40``; one for all sequences, or the user has to choose. In
    place of ``videos/000.mp4`` there may be frames that somebody took out already, ``frames/000/0001.png``. A
    manipulated video is named after its target and its source, so both ids, and all that they are connected with, are
    one group. The official splits, when ``train.json``, ``val.json`` and ``test.json`` are there, are lists of pairs:
    each stands for both orders and for both originals.
    """

    about = "1,000 videos and six ways to manipulate them"
    has_masks = True
    has_videos = True
    variants = ("c23", "c40", "raw", "c0")

    def recognises(self, root: Path) -> bool:
        return (root / "manipulated_sequences").is_dir() or (root / "original_sequences").is_dir()

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        root = spec.path
        if spec.variant and spec.variant not in self.variants:
            raise UserError(
                f"FaceForensics++ has no version {spec.variant!r}",
                hint=f"choose one of {', '.join(self.variants)}",
            )
        listed = _listed_pairs(root)
        if not listed:
            spec.missing.add("official split", "train.json, val.json, test.json")
        sequences = [("original_sequences", name, 0) for name in ("youtube", "actors")]
        sequences += [("manipulated_sequences", name, 1) for name in METHODS]
        files: list[tuple[str, int, Path, str]] = []  # sequence, label, video or frame, the video's name
        version = spec.variant or _common_version(root, [f"{kind}/{name}" for kind, name, _ in sequences])
        for kind, name, label in sequences:
            folder = _version(root / kind / name, version)
            if folder is None:
                spec.missing.add(f"sequence{f' in {spec.variant}' if spec.variant else ''}", f"{kind}/{name}")
                continue
            files += [(name, label, path, video_of(path)) for path in walk(folder)]
        if version and version != spec.variant and version != self.variants[0]:
            spec.notes.append(f"read in {version}, the version that all sequences have")
        component = components(
            [*PAIRS, *(pair for pair, _ in listed), *(ids_of(video) for *_, video in files)]
        )
        actors = [ids[0] for *_, video in files if (ids := ids_of(video))[0].startswith(_ACTOR)]
        if len(set(actors)) > 1 and len({component[each] for each in actors}) == 1:
            spec.notes.append(
                f"DeepFakeDetection's actors are swapped with one another: all {len(actors):,} files of theirs are one "
                "group, on one side of any split"
            )
        splits: dict[
            str, set[str]
        ] = {}  # of a component: a list that knows one of its videos decides for all
        for pair, split in listed:
            splits.setdefault(component[pair[0]], set()).add(split)
        for name, label, path, video in files:
            group = component[ids_of(video)[0]]
            masks = root / "manipulated_sequences" / name / "masks"
            mask = next((m for m in _masks(masks, path, video) if label and m.is_file()), None)
            yield Record(
                path,
                origin=path.relative_to(root).as_posix(),
                source="faceforensics",
                group=f"faceforensics:{group}",
                split="".join(splits[group]) if len(splits.get(group, ())) == 1 else "",
                label=label,
                generator=name if label else "",
                mask=mask,
            )
        there = {each for _, label, _, video in files if not label for each in ids_of(video)}
        for each in sorted({name for pair, _ in listed for name in pair} - there):
            spec.missing.add("original video of the official split", each)

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import face_video, mask_video, write_json

        pairs = {"train": [["071", "054"], ["087", "081"]], "val": [["130", "139"]], "test": [["000", "003"]]}
        for number, name in enumerate(
            sorted(each for part in pairs.values() for pair in part for each in pair)
        ):
            face_video(out / "original_sequences/youtube/c23/videos" / f"{name}.mp4", number)
        for split, part in pairs.items():
            write_json(out / "splits" / f"{split}.json", part)
            for first, second in part:
                for name in (f"{first}_{second}", f"{second}_{first}"):
                    for number, method in enumerate(METHODS[1:], 1):
                        videos = out / "manipulated_sequences" / method
                        face_video(videos / "c23/videos" / f"{name}.mp4", 100 * number + int(first))
                        if method != "FaceShifter":
                            mask_video(videos / "masks/videos" / f"{name}.mp4")
        actors = out / "original_sequences/actors/c23/videos"
        swaps = out / "manipulated_sequences/DeepFakeDetection/c23/videos"
        for actor in ("01", "02"):
            face_video(actors / f"{actor}__exit_phone_room.mp4", 900 + int(actor))
        face_video(swaps / "01_02__exit_phone_room__YVGY8LOK.mp4", 910)
        return out


def video_of(path: Path) -> str:
    """Name of the video: of its file, or of the folder that its frames are in."""
    return path.stem if named_video(path) else path.parent.name


def _masks(folder: Path, path: Path, video: str) -> list[Path]:
    """Where the mask of a video or of a frame may be."""
    if named_video(path):
        return [folder / "videos" / path.name]
    return [folder / kind / video / f"{path.stem}.png" for kind in ("frames", "images")]


def ids_of(stem: str) -> tuple[str, ...]:
    """Whose faces a video shows: target and source of a swap, one id of an original.

    Example:
        >>> ids_of("000_003"), ids_of("071"), ids_of("01_02__exit_phone_room__YVGY8LOK")
        (('000', '003'), ('071',), ('actor01', 'actor02'))
    """
    if "__" in stem:  # DeepFakeDetection's actors are numbered apart from YouTube's videos
        return tuple(f"{_ACTOR}{each}" for each in stem.split("__")[0].split("_"))
    return tuple(re.findall(r"\d{3}", stem)) or (stem,)


def components(links: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Every name to the least name that it is connected with; names in one tuple are connected.

    Example:
        >>> components([("b", "a"), ("c", "b"), ("d",)])
        {'b': 'a', 'a': 'a', 'c': 'a', 'd': 'd'}
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for link in links:
        roots = [root(name) for name in link]
        for each in roots:
            parent[root(each)] = min(root(each), root(roots[0]))
            parent[root(roots[0])] = root(each)
    return {name: root(name) for name in list(parent)}


def _listed_pairs(root: Path) -> list[tuple[tuple[str, ...], str]]:
    pairs = []
    for split in _SPLITS:
        file = next(
            (f for f in (root / f"{split}.json", root / "splits" / f"{split}.json") if f.is_file()), None
        )
        if file is None:
            continue
        try:
            content = json.loads(file.read_text())
            pairs += [(tuple(str(each) for each in pair), split) for pair in content]
        except (ValueError, TypeError) as error:
            raise UserError(f"{file} is no list of pairs ({error})", hint="download it again") from error
    return pairs


def _common_version(root: Path, sequences: Iterable[str]) -> str:
    """The preferred version of those that every sequence has: compression must not tell real from fake.

    Raises:
        UserError: there is none.
    """
    there = {name: found for name in sequences if (found := _versions(root / name))}
    common = [name for name in FaceForensics.variants if all(name in found for found in there.values())]
    if there and not common:
        held = "; ".join(f"{name.rpartition('/')[2]} in {', '.join(found)}" for name, found in there.items())
        every = [name for name in FaceForensics.variants if any(name in found for found in there.values())]
        raise UserError(
            f"the sequences of {root} have no version in common ({held})",
            hint=f"give --variant {' or '.join(every)}: those that lack it are left out",
        )
    return common[0] if common else ""


def _versions(sequence: Path) -> list[str]:
    there = subfolders(sequence)
    return [name for name in FaceForensics.variants if name in there and _kind(sequence / name)]


def _version(sequence: Path, version: str) -> Path | None:
    """The folder of the videos, or of their frames, in that version."""
    kind = _kind(sequence / version) if version else None
    return sequence / version / kind if kind else None


def _kind(folder: Path) -> str | None:
    kinds = subfolders(folder)
    return next((kind for kind in ("videos", "frames", "images") if kind in kinds), None)
