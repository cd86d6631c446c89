"""DF40 (Yan et al. 2024): forty ways to make a fake, applied to FaceForensics++ and Celeb-DF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources import celebdf, faceforensics
from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.faceforensics_pairs import PAIRS
from crossfake.datasets.sources.folder import subfolders, walk
from crossfake.datasets.sources.naming import label_of

_FF_VIDEO = re.compile(r"\d{3}(_\d{3})?")
_SUBSETS = frozenset(["ff", "cdf", "fake", "real"])


@SOURCES.register("df40")
class DF40(Source):
    """``[DF40/]METHOD/{ff,cdf,fake,real}/…/VIDEO/FRAME.png``.

    ``ff`` and ``cdf`` hold fakes made from FaceForensics++ and Celeb-DF: they share these sets' groups, so a detector
    trained on the one and tested on the other is caught.
    """

    about = "40 methods applied to FaceForensics++ and Celeb-DF, as frames"
    derived_from = ("faceforensics", "celebdf")
    has_videos = True

    def recognises(self, root: Path) -> bool:
        top = _top(root)
        return any({"ff", "cdf"} & set(subfolders(top / method)) for method in subfolders(top))

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        top = _top(spec.path)
        found = [
            (method, subset)
            for method in subfolders(top)
            for subset in subfolders(top / method)
            if subset in _SUBSETS
        ]
        pairs = {
            faceforensics.ids_of(name)
            for method, subset in found
            if subset == "ff"
            for name in _videos(top / method / subset)
            if _FF_VIDEO.fullmatch(name)
        }
        component = faceforensics.components([*PAIRS, *sorted(pairs)])
        for method, subset in found:
            for path in walk(top / method / subset):
                label = 1 if subset != "real" and "real" not in path.relative_to(top).parts[2:-1] else 0
                yield Record(
                    path,
                    origin=path.relative_to(spec.path).as_posix(),
                    source="df40",
                    group=_group(method, subset, path, component),
                    label=label,
                    generator=method if label else "",
                )

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import write_face

        for number, method in enumerate(("simswap", "sadtalker")):
            for frame in range(2):
                ff = out / "DF40" / method / "ff" / "frames" / "000_003"
                write_face(ff / f"{frame:03d}.png", 10 * number + frame)
                cdf = out / "DF40" / method / "cdf" / "frames" / "id0_id1_0000"
                write_face(cdf / f"{frame:03d}.png", 100 + 10 * number + frame)
        for label, subset in enumerate(("real", "fake")):
            write_face(out / "DF40" / "heygen" / subset / "frames" / "clip1" / "000.png", 200 + label)
        return out


def _top(root: Path) -> Path:
    return root / "DF40" if (root / "DF40").is_dir() else root


def _videos(folder: Path) -> list[str]:
    """Names of the videos whose frames are below ``ff``, with a level such as ``frames`` in between or not."""
    names = subfolders(folder)
    return [
        name
        for each in names
        for name in ([each] if _FF_VIDEO.fullmatch(each) else subfolders(folder / each))
    ]


def _group(method: str, subset: str, path: Path, component: dict[str, str]) -> str:
    video = faceforensics.video_of(path)
    # where frames lie loose in the class's own folder, each file is its own photo
    if video in _SUBSETS or video == "frames" or label_of(video) is not None:
        return ""
    if subset == "ff" and _FF_VIDEO.fullmatch(video):
        first = faceforensics.ids_of(video)[0]
        return f"faceforensics:{component.get(first, first)}"
    if subset == "cdf" and re.fullmatch(r"(id\d+_)+\d+", video):
        return celebdf.group_of(video)
    return f"df40:{method}/{video}"
