"""Celeb-DF version 2 (Li et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossfake.datasets.sources import faceforensics
from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import walk
from crossfake.errors import UserError

_FOLDERS = {"Celeb-real": 0, "YouTube-real": 0, "Celeb-synthesis": 1}
_TESTING = "List_of_testing_videos.txt"


@SOURCES.register("celebdf")
class CelebDF(Source):
    """``Celeb-real/id0_0000.mp4``, ``YouTube-real/00000.mp4``, ``Celeb-synthesis/id0_id1_0000.mp4``.

    In place of ``id0_0000.mp4`` there may be frames that somebody took out already, ``[frames/]id0_0000/000.png``.
    In ``List_of_testing_videos.txt`` **1 means real**; nothing here depends on it, labels come from the folders, and
    lines that say otherwise are reported. The group is the video that a swap was made from: identities are no use,
    every person is swapped with others until all are connected.
    """

    about = "590 real and 5,639 swapped videos of celebrities"
    has_videos = True

    def recognises(self, root: Path) -> bool:
        return (root / "Celeb-synthesis").is_dir() or (root / _TESTING).is_file()

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        testing = _testing(spec)
        seen: set[str] = set()
        for folder, label in _FOLDERS.items():
            if not (spec.path / folder).is_dir():
                spec.missing.add("folder", folder)
                continue
            for path in walk(spec.path / folder):
                origin = path.relative_to(spec.path).as_posix()
                video = faceforensics.video_of(path)
                listed = f"{folder}/{video}.mp4"
                if listed in testing:
                    # the list's 1 is real, a label's 1 is fake
                    if testing[listed] == label and listed not in seen:
                        spec.missing.add(f"agreement of {_TESTING} with the folder", origin)
                    seen.add(listed)
                yield Record(
                    path,
                    origin=origin,
                    source="celebdf",
                    group=group_of(video) if folder != "YouTube-real" else f"celebdf:youtube {video}",
                    split=("test" if listed in testing else "train") if testing else "",
                    label=label,
                    generator="celebdf" if label else "",
                )
        for origin in sorted(testing.keys() - seen):
            spec.missing.add(f"video named by {_TESTING}", origin)

    def fixture(self, out: Path) -> Path:
        from crossfake.datasets.sources.fixtures import face_video

        for number in range(3):
            face_video(out / "Celeb-real" / f"id{number}_0000.mp4", number)
            face_video(out / "YouTube-real" / f"{number:05d}.mp4", 10 + number)
            face_video(out / "Celeb-synthesis" / f"id{number}_id{(number + 1) % 3}_0000.mp4", 20 + number)
        lines = [
            "1 Celeb-real/id2_0000.mp4",
            "1 YouTube-real/00002.mp4",
            "0 Celeb-synthesis/id2_id0_0000.mp4",
        ]
        (out / _TESTING).write_text("\n".join(lines) + "\n")
        return out


def group_of(stem: str) -> str:
    """The video that a swap started from.

    Example:
        >>> group_of("id0_0000"), group_of("id0_id1_0000")
        ('celebdf:id0_0000', 'celebdf:id0_0000')
    """
    parts = stem.split("_")
    return f"celebdf:{parts[0]}_{parts[-1]}"


def _testing(spec: SourceSpec) -> dict[str, int]:
    file = spec.path / _TESTING
    if not file.is_file():
        spec.missing.add("official split", _TESTING)
        return {}
    testing = {}
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        if line.strip():
            mark, _, origin = line.strip().partition(" ")
            if mark not in ("0", "1") or not origin:
                raise UserError(f"{file} line {number} is not '1 FOLDER/VIDEO'", hint="download it again")
            testing[origin.strip()] = int(mark)
    return testing
