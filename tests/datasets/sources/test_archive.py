import io
import zipfile
from pathlib import Path

import pytest

from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.sources import archive as module
from crossfake.datasets.sources.base import Rejected, SourceSpec, open_source
from crossfake.datasets.sources.fixtures import face_bytes
from crossfake.errors import UserError


def _zip(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def test_hostile_entries_are_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = face_bytes(1, "PNG")
    monkeypatch.setattr(module, "MAX_BYTES", 1_000_000)
    names = ["a.png", "../out.png", "/root.png", "x\\..\\..\\y.png", "b/c.png", "notes.txt"]
    faces = [(name, b"text" if name == "notes.txt" else face) for name in names]
    path = _zip(tmp_path / "faces.zip", [*faces, ("bomb.png", bytes(2_000_000))])
    records = {record.origin: record.image for record in open_source(SourceSpec(str(path)))}
    rejected = {name: image.reason for name, image in records.items() if isinstance(image, Rejected)}
    assert rejected == {
        "../out.png": "unsafe name",
        "/root.png": "unsafe name",
        "x/../../y.png" if "x/../../y.png" in records else "x\\..\\..\\y.png": "unsafe name",
        "bomb.png": "unreadable",
    }
    settings = PrepareSettings(str(path), tmp_path / "out", size=16, crop="none", label="real", workers=1)
    done = prepare(settings)
    assert done.left_out.counts == {"not a picture or video": 1} and "notes.txt" in done.table()
    assert done.images == 2 and done.skipped == {"unsafe name": 3, "unreadable": 1}
    assert not (tmp_path.parent / "out.png").exists()
    assert "2,000,000 bytes" in (tmp_path / "out" / "skipped.csv").read_text()


def test_an_entry_that_unpacks_to_more_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _zip(tmp_path / "faces.zip", [("a.png", face_bytes(1, "PNG")), ("b.png", bytes(50_000))])
    content = path.read_bytes().replace((50_000).to_bytes(4, "little"), (500).to_bytes(4, "little"))
    path.write_bytes(content)
    monkeypatch.setattr(module, "MAX_BYTES", 20_000)
    done = prepare(PrepareSettings(str(path), tmp_path / "out", size=16, crop="none", workers=1))
    assert done.images == 1 and done.skipped == {"unreadable": 1}


def test_encrypted_damaged_and_no_archive(tmp_path: Path) -> None:
    path = _zip(tmp_path / "faces.zip", [("a.png", face_bytes(1, "PNG")), ("b.png", face_bytes(2, "PNG"))])
    content = bytearray(path.read_bytes())
    content[content.index(b"a.png") + 200] ^= 0xFF  # inside a's data: its CRC no longer fits
    path.write_bytes(content)
    done = prepare(PrepareSettings(str(path), tmp_path / "out", size=16, crop="none", workers=1))
    assert done.images == 1 and done.skipped == {"unreadable": 1}
    central = bytes(content).rindex(b"PK\x01\x02")
    content[central + 8] |= 1  # the flag of an encrypted member
    path.write_bytes(content)
    kinds = [type(record.image).__name__ for record in open_source(SourceSpec(str(path)))]
    assert kinds == ["Member", "Rejected"]
    (tmp_path / "bad.zip").write_bytes(b"PK no archive")
    with pytest.raises(UserError, match="not a whole zip"):
        open_source(SourceSpec(str(tmp_path / "bad.zip")))


def test_workers_read_members(tmp_path: Path) -> None:
    path = _zip(tmp_path / "faces.zip", [(f"{n:02d}.png", face_bytes(n, "PNG")) for n in range(40)])
    done = prepare(PrepareSettings(str(path), tmp_path / "out", size=16, crop="none", workers=2))
    assert done.images == 40 and not done.skipped
    assert io.BytesIO(path.read_bytes())
