"""The audit as a whole: sets of drawn faces that differ in exactly one thing, and sets that do not."""

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.audit.audit import (
    audit,
)
from crossfake.datasets.audit.report import Audit
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.audit.verdict import audit_training
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.datasets.toyfaces import toyface
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError

SIZE, COUNT = 48, 40
Save = Callable[[Image.Image, Path], None]


@pytest.fixture(scope="module")
def faces() -> list[Pixels]:
    return [toyface(seed, SIZE) for seed in range(2 * COUNT)]


def jpeg(quality: int = 90, **options: object) -> Save:
    return lambda image, path: image.save(path.with_suffix(".jpg"), "JPEG", quality=quality, **options)


def png(image: Image.Image, path: Path) -> None:
    image.save(path.with_suffix(".png"), "PNG")


def folder(out: Path, faces: list[Pixels], save: Save = png) -> str:
    out.mkdir(parents=True)
    for number, face in enumerate(faces):
        save(Image.fromarray(face), out / f"{number:03d}")
    return str(out)


def pair(
    tmp_path: Path,
    faces: list[Pixels],
    real: Save,
    fake: Save,
    change: Callable[[Pixels], Pixels] | None = None,
    **more: object,
) -> Audit:
    """The audit of two folders of different faces, written in two ways."""
    fakes = [change(face) if change else face for face in faces[COUNT:]]
    settings = AuditSettings(
        real=(folder(tmp_path / "a", faces[:COUNT], real),),
        fake=(folder(tmp_path / "b", fakes, fake),),
        workers=1,
        **more,  # type: ignore[arg-type]
    )
    return audit(settings)


def verdicts(found: Audit) -> dict[str, str]:
    return {result.key: result.verdict for result in (*found.probes, *found.checks)}


def probe(found: Audit, key: str):  # type: ignore[no-untyped-def]
    return next(p for p in found.probes if p.key == key)


def check(found: Audit, key: str):  # type: ignore[no-untyped-def]
    return next(c for c in found.checks if c.key == key)


def brighter(face: Pixels) -> Pixels:
    return np.clip(face.astype(int) + 70, 0, 255).astype(np.uint8)


def enlarged(face: Pixels) -> Pixels:
    small = Image.fromarray(face).resize((SIZE // 2, SIZE // 2), Image.Resampling.BOX)
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def wider(face: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(face).resize((SIZE + 4, SIZE), Image.Resampling.BICUBIC))


def exif_bytes() -> bytes:
    exif = Image.Exif()
    exif[271], exif[305] = "a camera", "a program"
    return exif.tobytes()


ALONE = {
    "format",
    "jpeg",
    "size",
    "metadata",
    "thumbnail",
}  # see nothing of what other differences leave in pixels


@pytest.mark.parametrize(
    ("real", "fake", "change", "meant", "unrelated"),
    [
        (png, jpeg(95), None, "format", ALONE - {"format"} | {"colours"}),
        (jpeg(95), jpeg(60), None, "jpeg", ALONE - {"jpeg"} | {"colours"}),
        (
            jpeg(90, subsampling=0),
            jpeg(90, subsampling=2),
            None,
            "jpeg",
            ALONE - {"jpeg"} | {"colours", "blocks"},
        ),
        (png, png, wider, "size", ALONE - {"size"} | {"colours", "blocks"}),
        (png, png, brighter, "colours", ALONE - {"thumbnail"} | {"blocks", "spectrum"}),
        (png, png, enlarged, "spectrum", ALONE | {"colours"}),
        (
            jpeg(90),
            jpeg(90, exif=exif_bytes()),
            None,
            "metadata",
            ALONE - {"metadata"} | {"colours", "spectrum"},
        ),
    ],
    ids=["format", "quality", "subsampling", "size", "brightness", "enlarged", "metadata"],
)
def test_one_difference_fails_its_probe(tmp_path, faces, real, fake, change, meant, unrelated):
    found = pair(tmp_path, faces, real, fake, change)
    seen = verdicts(found)
    assert seen[meant] == "fail"
    assert probe(found, meant).auc > 0.9
    assert not {key: seen[key] for key in unrelated if seen[key] in ("fail", "warn")}
    assert found.verdict == "fail" and probe(found, meant).name in found.summary()
    assert probe(found, meant).hint


def test_old_jpeg_traces_are_seen_in_pixels(tmp_path, faces):
    def through_jpeg(image: Image.Image, path: Path) -> None:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=40)
        png(Image.open(buffer), path)

    found = pair(tmp_path, faces, png, through_jpeg)
    assert probe(found, "blocks").verdict == "fail"
    assert {verdicts(found)[key] for key in ("format", "size", "metadata", "jpeg")} == {"pass"}


def test_same_distribution_passes(tmp_path, faces):
    found = pair(tmp_path, faces, jpeg(90), jpeg(90), out=tmp_path / "out")
    assert {p.verdict for p in found.probes} <= {"pass", "cannot tell", "not run"}
    assert {p.verdict for p in found.probes if p.key in ("surroundings", "faces")} == {"not run"}
    assert "YuNet" in probe(found, "faces").meaning
    assert probe(found, "format").auc == probe(found, "metadata").auc == 0.5
    assert found.verdict in ("pass", "warn")


def test_thresholds_move_the_verdict(tmp_path, faces):
    found = pair(tmp_path, faces, png, jpeg(95), warn=0.9, fail=1.0)
    assert probe(found, "format").verdict == "warn" and found.verdict == "warn"
    assert "1 warning" in found.summary() or "warnings" in found.summary()


def test_workers_change_nothing(tmp_path, faces):
    words = [
        folder(tmp_path / name, part, jpeg(90)) for name, part in (("a", faces * 2), ("b", faces[::-1] * 2))
    ]
    results = []
    for workers in (1, 2):
        settings = AuditSettings(real=(words[0],), fake=(words[1],), workers=workers)
        results.append(audit(settings).as_dict() | {"settings": None})
    assert results[0] == results[1]


def test_files(tmp_path, faces):
    """JSON round trip; names that are no UTF-8 or hold HTML stay text; nothing is fetched; corrupt files listed."""
    real = Path(folder(tmp_path / "a", faces[:12]))
    png(Image.fromarray(faces[20]), real / "<script>alert(1)<")
    (real / "<img src=x onerror=alert(2)>.png").write_bytes(b"not a picture")
    with open(os.fsencode(real) + b"/caf\xe9.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n cut")
    fake = folder(tmp_path / "b", faces[30:42], jpeg(80))
    found = audit(AuditSettings(real=(str(real),), fake=(fake,), out=tmp_path / "out", workers=1))
    saved = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert saved == found.as_dict() == json.loads(json.dumps(found.as_dict()))
    assert saved["verdict"] == found.verdict and saved["settings"]["seed"] == 0
    corrupt = next(c for c in saved["checks"] if c["key"] == "corrupt")
    assert corrupt["verdict"] == "warn" and corrupt["figures"]["real"] == 2
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=x" not in page and "&lt;img src=x" in page
    assert "caf\ufffd.png" in page and "caf\ufffd.png" in found.table()
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", page)
    assert page.count("data:image/jpeg;base64,") >= 20


def test_table_is_aligned(tmp_path, faces):
    lines = pair(tmp_path, faces, png, jpeg(90)).table().splitlines()
    head = next(line for line in lines if line.startswith("probe"))
    row = next(line for line in lines if line.startswith("file format"))
    assert head.index("verdict") == row.index("FAIL")
    assert any(line.startswith("audit: FAIL") for line in lines)
    assert any("crossfake data launder --real" in line for line in lines)
    assert max(map(len, (line for line in lines[: lines.index("")]))) <= 120


def shards(out: Path, rows: list[tuple[Pixels | bytes, Row]], codec: str = "raw") -> str:
    with ShardWriter(out, size=None if codec == "original" else SIZE, codec=codec) as writer:
        for image, row in rows:
            writer.append(image, row)
    return str(out)


def test_raw_shards_have_no_files(tmp_path, faces):
    rows = [
        (face, Row(number % 2, "set", group=f"g{number}", split="train")) for number, face in enumerate(faces)
    ]
    folder = shards(tmp_path / "set", rows)
    found = audit(AuditSettings(real=(folder,), fake=(folder,), workers=1, split=("train",)))
    for key in ("format", "jpeg", "bytes", "metadata"):
        assert probe(found, key).auc == 0.5 and probe(found, key).verdict == "pass"
        assert "pixels only" in probe(found, key).meaning
    assert found.looked_at == {"real": COUNT, "fake": COUNT}
    assert list(found.as_dict()["shards"]) == [folder]
    with pytest.raises(UserError, match="no real pictures of split val or none"):
        audit(AuditSettings(real=(folder,), fake=(folder,), workers=1, split=("val", "")))


def test_original_shards_are_files(tmp_path, faces):
    def content(number: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(faces[number]).save(buffer, "JPEG" if number % 2 else "PNG")
        return buffer.getvalue()

    rows = [(content(number), Row(number % 2, "set")) for number in range(COUNT)]
    folder = shards(tmp_path / "set", rows, "original")
    found = audit(AuditSettings(real=(folder,), fake=(folder,), workers=1))
    assert probe(found, "format").verdict == "fail"


def test_pixels_against_files_is_not_run(tmp_path, faces):
    real = shards(tmp_path / "set", [(face, Row(0, "set")) for face in faces[:10]])
    found = audit(AuditSettings(real=(real,), fake=(folder(tmp_path / "b", faces[10:20]),), workers=1))
    assert probe(found, "format").verdict == probe(found, "jpeg").verdict == "not run"
    assert "pixels without files" in probe(found, "format").meaning


def test_copies_and_leaks(tmp_path, faces):
    """Five faces in both splits, in different files; three reals among the fakes; one group on both sides."""
    rows = [(face, Row(0, "set", group=f"r{k}", split="train")) for k, face in enumerate(faces[:30])]
    rows += [(brighter(face), Row(0, "set", group=f"x{k}", split="test")) for k, face in enumerate(faces[:5])]
    rows += [(face, Row(1, "set", group=f"f{k}", split="train")) for k, face in enumerate(faces[40:70])]
    rows += [(face, Row(1, "set", group=f"y{k}", split="train")) for k, face in enumerate(faces[10:13])]
    rows += [(faces[75], Row(0, "set", group="f0", split="test"))]
    folder = shards(tmp_path / "set", rows)
    found = audit(AuditSettings(real=(folder,), fake=(folder,), out=tmp_path / "out", workers=1))
    assert (
        check(found, "both classes").verdict == "fail" and check(found, "both classes").figures["exact"] == 3
    )
    assert check(found, "leaks").verdict == "fail" and check(found, "leaks").figures["count"] >= 5
    assert check(found, "groups").verdict == "fail" and check(found, "groups").figures["first"] == ["f0"]
    assert "1 group" in check(found, "shared groups").meaning
    assert check(found, "copies").verdict == "warn" and check(found, "copies").figures["real near"] >= 5
    assert found.verdict == "fail" and "copies across splits" in found.summary()
    assert "equal to the pixel" in (tmp_path / "out" / "audit.html").read_text()


def test_edges_that_are_mirrored_on_one_side_only(tmp_path, faces):
    def tight(face: Pixels) -> Pixels:
        return cv2.copyMakeBorder(face[10:38, 10:38], 10, 10, 10, 10, cv2.BORDER_REFLECT_101)

    def alike(image: Image.Image, path: Path) -> None:
        noise = np.random.default_rng(int(path.stem)).normal(0, 12, (SIZE // 4, SIZE // 4, 3))
        noise = cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        pixels = np.asarray(image) + (tight(noise) if path.parent.name == "b" else noise)
        png(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), path)

    found = probe(pair(tmp_path, faces, alike, alike, tight), "edges")
    assert found.verdict == "fail" and found.auc > 0.9 and found.telling == "mirrored share"
    assert "median 0 in reals" in found.meaning


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes have tests of their own, and take longest."""
    monkeypatch.setattr("crossfake.datasets.audit.audit.run_probes", lambda *_: [])


def losing(out: Path, faces: list[Pixels], label: int, lost: int) -> str:
    """Prepared shards of one class, and a list of what was left out."""
    rows = [(face, Row(label, "set", origin=f"kept {number}")) for number, face in enumerate(faces)]
    folder = shards(out, rows)
    kind = ("real", "fake")[label]
    lines = [f"{number}.png,picture ends too close to the face,,{kind},0.93" for number in range(lost)]
    (out / "skipped.csv").write_text("\n".join(["file,reason,detail,label,margin", *lines, ""]))
    return folder


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize(
    ("reals", "fakes", "verdict"), [(400, 0, "fail"), (4, 0, "pass"), (400, 400, "warn"), (0, 12, "fail")]
)
def test_what_prepare_left_out_is_compared(tmp_path, faces, reals, fakes, verdict):
    real, fake = (
        losing(tmp_path / name, faces[label * COUNT : (label + 1) * COUNT], label, lost)
        for label, (name, lost) in enumerate((("real", reals), ("fake", fakes)))
    )
    found = check(audit(AuditSettings(real=(real,), fake=(fake,), workers=1)), "losses")
    assert found.verdict == verdict
    assert found.figures["real"]["lost"] == reals and found.figures["fake"]["of"] == COUNT + fakes
    assert ("--margin 0.9 would keep 95% of these" in found.hint) == (verdict != "pass")
    verdict_of = audit_training([Path(real)], [Path(fake)])  # what 'detect train' says of them
    assert ("left out by prepare" in verdict_of["summary"]) == (verdict != "pass")


@pytest.mark.usefixtures("unprobed")
def test_sets_that_nobody_counted_are_not_compared(tmp_path, faces):
    real = losing(tmp_path / "real", faces[:COUNT], 0, 10)
    fake = shards(tmp_path / "fake", [(face, Row(1, "synth")) for face in faces[COUNT:]])
    found = check(audit(AuditSettings(real=(real,), fake=(fake,), workers=1)), "losses")
    assert (
        found.verdict == "warn" and list(found.figures) == ["real"] and "20% of the reals:" not in found.hint
    )
    found = audit(AuditSettings(real=(folder(tmp_path / "a", faces[:COUNT]),), fake=(fake,), workers=1))
    assert "losses" not in verdicts(found)


def test_memorised_fakes_are_shown(tmp_path):
    """Fakes that are reals with a small change of colour and contrast, as an overfitted generator makes them."""
    reals = [toyface(seed, SIZE) for seed in range(60)]
    fakes = [np.clip(face * 0.9 + 10, 0, 255).astype(np.uint8) for face in reals[:30]]
    words = [folder(tmp_path / "a", reals), folder(tmp_path / "b", fakes)]
    found = audit(AuditSettings(real=(words[0],), fake=(words[1],), workers=1))
    assert check(found, "memory").verdict == "warn" and check(found, "memory").figures["flagged"] >= 25
    assert len(check(found, "memory").pairs) == 8


def test_face_probes_on_photos(tmp_path, real_data, real_weights):
    """Photos cut tighter on one side: the face probes see it, and fakes' backgrounds can be compared at all."""
    names = sorted((real_data / "all-age-faces").iterdir())[:60]
    for number, name in enumerate(names):
        side = tmp_path / ("ab"[number % 2])
        side.mkdir(exist_ok=True)
        with Image.open(name) as image:
            width, height = image.size
            cut = (width // 8, height // 8, width * 7 // 8, height) if number % 2 else (0, 0, width, height)
            image.crop(cut).resize((160, 180)).save(side / name.name)
    found = audit(AuditSettings(real=(str(tmp_path / "a"),), fake=(str(tmp_path / "b"),), workers=1))
    assert probe(found, "faces").verdict == "fail" and probe(found, "surroundings").auc is not None
    assert verdicts(found)["size"] == "pass"


def test_few_pictures_cannot_tell(tmp_path, faces):
    real, fake = folder(tmp_path / "a", faces[:1]), folder(tmp_path / "b", faces[1:4], jpeg(50))
    found = audit(AuditSettings(real=(real,), fake=(fake,), out=tmp_path / "out", workers=1))
    assert {p.verdict for p in found.probes} <= {"cannot tell", "not run", "pass"}
    assert probe(found, "format").verdict == "cannot tell"
    assert found.verdict == "warn" and "cannot tell" in found.summary()


def test_errors_in_one_line(tmp_path, faces):
    real = folder(tmp_path / "a", faces[:3])
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"nothing")
    os.mkfifo(tmp_path / "bad" / "pipe.png")
    for fake, says in (
        ("empty", "no images"),
        ("bad", "none of 2 fake pictures can be read"),
        ("gone", "gone"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            audit(AuditSettings(real=(real,), fake=(str(tmp_path / fake),), workers=1))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"real": ()},
        {"fake": ("",)},
        {"limit": 0},
        {"warn": 0.8, "fail": 0.7},
        {"fail": 1.1},
        {"workers": -1},
        {"split": ("tarin",)},
        {"seed": -1},
    ],
    ids=str,
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UserError):
        AuditSettings(**{"real": ("a",), "fake": ("b",)} | wrong)


def natives(out: Path, label: int, change: Callable[[Pixels, int], Pixels], count: int = COUNT) -> str:
    rng = np.random.default_rng(label)
    with ShardWriter(out, attributes={"crop": {"policy": "face", "pixels": "native"}}) as writer:
        for number in range(count):
            noise = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
            image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.8), np.uint8)
            writer.append(
                np.ascontiguousarray(change(image, number)), Row(label, "set", group=f"{label} {number}")
            )
    return str(out)


def test_native_sets_are_probed_for_scale_and_clipped_edges(tmp_path):
    plain = lambda image, number: image[: 140 - number % 3, : 140 - number % 3]  # noqa: E731
    reals = natives(tmp_path / "real", 0, plain)

    def against(name: str, change: Callable[[Pixels, int], Pixels]) -> Audit:
        fakes = natives(tmp_path / name, 1, change)
        return audit(AuditSettings(real=(reals,), fake=(fakes,), workers=1))

    same = against("same", plain)
    assert {probe(same, key).verdict for key in ("scale", "clipped", "size", "blocks", "spectrum")} <= {
        "pass",
        "cannot tell",
    }

    def enlarged(image: Pixels, number: int) -> Pixels:
        large = np.asarray(cv2.resize(image, None, fx=1.4, fy=1.4, interpolation=cv2.INTER_LINEAR), np.uint8)
        return large[: 140 - number % 3, : 140 - number % 3]

    scaled = probe(against("scaled", enlarged), "scale")
    assert scaled.verdict == "fail" and scaled.auc > 0.95 and "never resized" in scaled.hint
    cut = probe(against("cut", lambda image, number: plain(image, number)[: 110 + number % 9]), "clipped")
    assert cut.verdict == "fail" and cut.auc > 0.95 and "--edge skip" in cut.hint


def test_one_native_class_is_compared_as_far_as_it_goes(tmp_path, faces):
    reals = natives(tmp_path / "real", 0, lambda image, number: image)
    fakes = shards(tmp_path / "fake", [(face, Row(1, "set", group=f"{n}")) for n, face in enumerate(faces)])
    found = audit(AuditSettings(real=(reals,), fake=(fakes,), workers=1))
    assert probe(found, "scale").verdict == "not run" and "no native crops" in probe(found, "scale").meaning
    assert probe(found, "size").verdict == "fail"
    with pytest.raises(UserError, match="holds no fake pictures"):
        audit(AuditSettings(real=(reals,), fake=(reals,), workers=1))
    few = natives(tmp_path / "few", 1, lambda image, number: image[:20, :20], 3)
    tiny = audit(AuditSettings(real=(reals,), fake=(few,), workers=1))
    assert probe(tiny, "scale").verdict == "cannot tell"
