"""One archive of an experiment that another machine can verify, with nothing of the machine that it was run on.

A zip archive of one folder: ``config.yaml``, ``experiment.json``, ``environment.json``, of each cell ``cell.json`` and
``scores/``, all that a report writes, and ``SHA256SUMS`` (as ``sha256sum -c`` reads it). Three things differ from the
experiment's own folder: paths are names without their folders, command lines are gone, and groups (persons, photos,
files) are numbers. Numbers are given in the order of the names, so every resample and every figure stays the same.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from crossfake.errors import UserError
from crossfake.experiments.report.reporting import report
from crossfake.experiments.report.results import Results, scores_name
from crossfake.experiments.report.sheet import PICTURES
from crossfake.experiments.report.verifying import MISTAKES, resamples_of, verify
from crossfake.files import replacing, write_json, write_text
from crossfake.provenance import hash_file

SUMS = "SHA256SUMS"
_MAX_BYTES = 4 << 30  # of an unpacked archive: a small one can claim to hold any amount
_DAMAGED = (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error)
_ENDS = r"\s/'\"“”,;:()\[\]{}<>|"  # of a path within a text
_PATH = re.compile(rf"(?<![\w/.])(?:~|\.\.)?(?:/[^{_ENDS}]+)+/([^{_ENDS}]*)")


def pack(folder: str | Path, out: Path | None = None, pictures: bool = False) -> Path:
    """Write an archive of an experiment for others to verify.

    Args:
        folder: an experiment whose report is what its scores give.
        out: the archive; by default beside the folder, with its name and ``.zip``.
        pictures: keep the example pictures, and those that detectors were wrong about, in the report.

    Returns:
        The archive.

    Raises:
        UserError: the folder holds no finished cell, its report is not what the scores give, or ``out`` cannot be
            written.

    Example:
        >>> pack("runs/demo")  # doctest: +SKIP
        PosixPath('runs/demo.zip')
    """
    folder = Path(folder)
    results = Results(folder)
    if results.pending:
        raise UserError(
            f"{folder}: {len(results.pending)} cells are not finished", hint="run the experiment to its end"
        )
    if wrong := verify(folder):
        raise UserError(
            f"{folder}: the report is not what the scores give ({wrong[0]})",
            hint=f"write it anew: crossfake experiment report {folder}",
        )
    name = folder.resolve().name
    out = out or (folder if folder.name else folder.resolve()).parent / f"{name}.zip"
    if not out.parent.is_dir() or out.is_dir():
        raise UserError(f"{out} cannot be written", hint="name a file in a folder that is there: --out x.zip")
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / name
        copy.mkdir()
        _copy(results, copy, pictures)
        report(copy, resamples_of(folder))
        if pictures:  # the mistakes can be read from the shards alone, which stay where they are
            shown = MISTAKES.findall((folder / "report.html").read_text())
            page = (copy / "report.html").read_text()
            write_text(copy / "report.html", MISTAKES.sub(lambda _: "".join(shown), page))
        _refuse_other_figures(folder, copy)
        files = sorted(file for file in copy.rglob("*") if file.is_file())
        lines = [f"{hash_file(file)}  {file.relative_to(copy).as_posix()}\n" for file in files]
        write_text(copy / SUMS, "".join(lines))
        _zip(Path(temporary), [*files, copy / SUMS], out)
    return out


def _copy(results: Results, copy: Path, pictures: bool) -> None:
    """What a report is made of, without paths, command lines and names of groups."""
    folder = results.folder
    groups = {group for truth in results.truths.values() for group in truth.groups}
    width = len(str(len(groups)))
    numbers = {group: f"g{number:0{width}}" for number, group in enumerate(sorted(groups))}
    facts = json.loads((folder / "experiment.json").read_text())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    settings = [cell.card["settings"] for cell in results.cells]
    parts = [test["parts"] for test in facts["tests"]]
    bare = _Paths(facts["config"], config, settings, parts, str(folder.resolve()))
    for each in (facts["config"], config):
        each["cache"] = None  # cells lie in the archive
    for test in facts["tests"]:
        test["parts"] = None
    write_json(copy / "experiment.json", bare(facts))
    write_text(copy / "config.yaml", yaml.safe_dump(bare(config), sort_keys=False, allow_unicode=True))
    environment = json.loads((folder / "environment.json").read_text())
    environment.pop("command", None)
    write_json(copy / "environment.json", bare(environment))
    for cell in {cell.key: cell for cell in results.cells}.values():
        to = copy / "cells" / cell.key
        (to / "scores").mkdir(parents=True)
        write_json(to / "cell.json", bare(cell.card))
        for test in results.tests.values():
            _copy_scores(cell.scores_file(test), to / scores_name(test), numbers)
    if (listed := folder / PICTURES).is_file():  # digests of names that could be guessed become numbers
        header, *lines = listed.read_text().splitlines()
        split = (line.split(",") for line in lines)
        bare_lines = (",".join([line[0], str(n), *line[2:]]) for n, line in enumerate(split))
        write_text(copy / PICTURES, "\n".join([header, *bare_lines]) + "\n")
    if pictures:
        for pool in facts["pools"]:
            for picture in (pool["picture"], pool["grid"]):
                if picture and (folder / picture).is_file():
                    (copy / picture).parent.mkdir(exist_ok=True)
                    shutil.copyfile(folder / picture, copy / picture)


def _copy_scores(file: Path, to: Path, numbers: dict[str, str]) -> None:
    with open(file, newline="", errors="surrogateescape") as lines, open(to, "w", newline="") as out:
        reader, writer = csv.reader(lines), csv.writer(out)
        writer.writerow(next(reader))
        writer.writerows((row, label, numbers[group], score) for row, label, group, score in reader)


class _Paths:
    """Takes the folders off all paths in the texts of a value.

    Those that stand alone somewhere in ``known`` are found wherever they are, blanks and all; others as far as a
    text shows where they end.

    Example:
        >>> bare = _Paths({"real": ["/home/ann/my faces/64", "data/faces"]})
        >>> bare({"real": ["/home/ann/my faces/64", "data/faces"], "note": "/home/ann/x.txt and /home/ann/my faces/64"})
        {'real': ['64', 'data/faces'], 'note': 'x.txt and 64'}
    """

    def __init__(self, *known: Any) -> None:
        found = {path for each in known for path in _paths(each)}
        longest_first = sorted(found, key=len, reverse=True)
        self.known = re.compile(
            rf"(?<![\w.~])(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})(?![\w.-])"
        )

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if not isinstance(value, str):
            return value
        value = self.known.sub(lambda path: os.path.basename(path[0]), value)
        return _PATH.sub(r"\1", value)


def _paths(value: Any) -> Iterator[str]:
    """Strings that are a path from the root, the home or outside of the folder, also behind a name: ``ffhq:/data``."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, str) and (found := re.match(r"(?:\w+:)?((?:~\w*|\.\.)?/[^/].*[^/])/*$", value)):
        yield found[1]


def _refuse_other_figures(folder: Path, copy: Path) -> None:
    """The archive's figures are the experiment's, to the last digit; hashes of score files are its own."""

    def rows(place: Path) -> list[dict[str, str]]:
        lines = csv.DictReader(io.StringIO((place / "results.csv").read_text()))
        return [{name: value for name, value in line.items() if name != "scores_sha256"} for line in lines]

    contrasts = [(place / "contrasts.csv").read_text() for place in (folder, copy)]
    if rows(folder) != rows(copy) or contrasts[0] != contrasts[1]:
        raise UserError(
            f"{folder}: the archive's figures would not be the report's", hint="write the report anew"
        )


def _zip(root: Path, files: list[Path], out: Path) -> None:
    """Without dates and owners: the same files make the same archive."""
    try:
        with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                entry = zipfile.ZipInfo(file.relative_to(root).as_posix())
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", hint="name another --out") from error


def verify_archive(archive: str | Path) -> list[str]:
    """Unpack what :func:`pack` wrote into a temporary folder, check all hashes, and compute the tables anew.

    Returns:
        One sentence per difference; nothing when all is as it should be.

    Raises:
        UserError: it is no such archive, or a damaged one.
    """
    with _unpacked(Path(archive)) as folder:
        return [*_changed(folder), *verify(folder)]


@contextmanager
def _unpacked(archive: Path) -> Iterator[Path]:
    hint = "make one with 'crossfake experiment pack'"
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with zipfile.ZipFile(archive) as opened:
                entries = opened.infolist()
                if sum(entry.file_size for entry in entries) > _MAX_BYTES:
                    raise UserError(f"{archive} unpacks to more than {_MAX_BYTES >> 30} GiB", hint=hint)
                for entry in entries:
                    opened.extract(entry, temporary)  # which leaves out '..' and what leads to the root
        except _DAMAGED as error:
            raise UserError(f"{archive} is not a whole zip archive ({error})", hint=hint) from error
        found = [file.parent for file in Path(temporary).glob(f"*/{SUMS}")]
        if len(found) != 1:
            raise UserError(f"{archive} holds no packed experiment", hint=hint)
        if not _stays_inside(found[0]):
            raise UserError(f"{archive}: its experiment.json names files outside of it", hint=hint)
        yield found[0]


def _stays_inside(folder: Path) -> bool:
    """Whether every file that a report reads lies in the folder, whoever wrote ``experiment.json``."""
    try:
        facts = json.loads((folder / "experiment.json").read_text())
        names = [f"cells/{entry['key']}/cell.json" for entry in facts["cells"]]
        names += [f"cells/x/{scores_name(test)}" for test in facts["tests"]]
        names += [name for pool in facts["pools"] for name in (pool["picture"], pool["grid"]) if name]
        elsewhere = facts["config"].get("cache") or any(test["parts"] for test in facts["tests"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True  # which is said when it is read
    root = folder.resolve()
    return not elsewhere and all((root / name).resolve().is_relative_to(root) for name in names)


def _changed(folder: Path) -> list[str]:
    """Files that are not what the list of hashes says, by name."""
    lines = [line.partition("  ") for line in (folder / SUMS).read_text().splitlines()]
    listed = {name: digest for digest, _, name in lines}
    there = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    del there[SUMS]
    said = [f"{name} is listed in {SUMS} and not there" for name in listed if name not in there]
    said += [f"{name} is not listed in {SUMS}" for name in sorted(there) if name not in listed]
    return said + [
        f"{name} is not what it was when it was packed"
        for name, file in sorted(there.items())
        if name in listed and hash_file(file) != listed[name]
    ]
