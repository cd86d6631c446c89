"""What the audit reads out of one file or picture, how it chooses pictures, and which are neighbours."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.audit import files, pixels
from crossfake.datasets.audit.features import NAMES, look
from crossfake.datasets.audit.mirrors import mirrors
from crossfake.datasets.audit.near import families, nearest
from crossfake.datasets.audit.sample import Picked, sample, survey
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.faces import Face
from crossfake.datasets.geometry import cut_square, outside
from crossfake.datasets.sources.base import Record
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError


def saved(kind: str = "JPEG", size: int = 48, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(toyface(3, size)).save(buffer, kind, **options)
    return buffer.getvalue()


def named(key: str, content: bytes, name: str = "face.jpg") -> dict[str, float]:
    return dict(zip(NAMES[key], files.file_values(content, name)[key].tolist(), strict=True))


@pytest.mark.parametrize("quality", range(30, 101))
def test_jpeg_quality(quality):
    found = named("jpeg", saved(quality=quality))
    assert found["quality"] == quality and found["distance from the standard table"] == 0


def test_jpeg_tables_of_others():
    odd = [max(1, 3 * k) for k in range(64)]
    found = named("jpeg", saved(qtables=[odd, odd]))
    assert found["distance from the standard table"] > 1


@pytest.mark.parametrize(("number", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_subsampling(number, name):
    found = named("jpeg", saved(subsampling=number))
    assert [key for key in ("4:4:4", "4:2:2", "4:2:0") if found[key]] == [name]


def test_format():
    assert named("format", saved("PNG"), "a.png")["PNG"] == 1
    assert named("format", saved("PNG"), "a.png")["name contradicts content"] == 0
    assert named("format", saved("PNG"), "a.JPG")["name contradicts content"] == 1
    assert named("format", saved("JPEG"), "a.jpeg")["name contradicts content"] == 0
    assert named("format", saved("JPEG"), "no extension")["name contradicts content"] == 0
    assert named("format", saved("JPEG", progressive=True))["progressive"] == 1
    assert "jpeg" not in files.file_values(saved("PNG"), "a.png")


def test_metadata():
    plain, empty = named("metadata", saved()), named("metadata", saved("PNG"))
    assert plain == empty  # a PNG has no JFIF header, which is no metadata
    exif = Image.Exif()
    exif[271] = "maker"
    full = named(
        "metadata", saved(exif=exif.tobytes(), comment=b"hello", icc_profile=b"x" * 200, dpi=(300, 300))
    )
    assert full["EXIF"] and full["camera named"] and full["comment or text"] and full["ICC profile"]
    assert full["JFIF density"] == 300 and full["JFIF unit"] == 1
    assert not full["software named"] and not full["thumbnail"]


def test_damaged_exif_is_no_error():
    content = saved(exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    facts = look(Picked(Record(content, "a.jpg", "x"), 0, "a"), None, False)
    assert not facts.problem and facts.is_file


def test_blockiness_sees_the_grid():
    image = toyface(0, 96)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    compressed = np.asarray(Image.open(buffer))
    clean, blocky, shifted = (pixels.blockiness(i) for i in (image, compressed, compressed[3:, 5:]))
    assert blocky[:2].min() > 0.3 > clean[:2].max()
    assert shifted[:2].max() < 0.3 < shifted[2:].min()  # a crop moves the grid, the strongest phase finds it
    assert np.isnan(pixels.blockiness(image[:10])).all()


def test_spectrum_sees_enlarging():
    image = toyface(0, 96)
    enlarged = np.asarray(Image.fromarray(toyface(0, 32)).resize((96, 96), Image.Resampling.BICUBIC))
    sharp, soft = pixels.spectrum(image), pixels.spectrum(enlarged)
    assert soft[0] < sharp[0] and soft[-1] < sharp[-1] - 1
    assert np.isfinite(pixels.spectrum(np.zeros((64, 64, 3), np.uint8))).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (24, 24), (37, 1000), (2000, 25)])
def test_any_shape_is_measured(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    facts = look(Picked(Record(image, "x", "x"), 1, "x"), None, True)
    assert not facts.problem and facts.shown
    assert {len(NAMES[key]) == len(values) for key, values in facts.values.items()} == {True}


@pytest.mark.parametrize("degrees", [0, 7, -18])
def test_mirrored_edges_are_measured(degrees):
    """A turned square of a photo's lower left corner, a quarter of its width and a tenth of its height beyond it."""
    rng = np.random.default_rng(0)
    photo = cv2.GaussianBlur(rng.integers(0, 256, (300, 300, 3), np.uint8), (0, 0), 4)
    angle = np.deg2rad(degrees)
    half = 70 * np.array([np.cos(angle), np.sin(angle)])
    inside = cut_square(photo, np.array([150, 150]), half, 64)
    beyond = cut_square(photo, np.array([35, 244]), half, 64, edge="reflect")
    assert (mirrors(inside) == 0).all()
    share, left, right, top, bottom = mirrors(beyond)
    assert share == pytest.approx(outside(photo, np.array([35, 244]), half), abs=0.08)
    assert left == pytest.approx(0.25, abs=0.08) and bottom == pytest.approx(0.1, abs=0.08)
    assert right == top == 0
    assert (mirrors(np.full((64, 64, 3), 9, np.uint8)) == 0).all() and np.isnan(mirrors(photo[:20])).all()


def test_surroundings_hide_the_face():
    image = np.full((80, 80, 3), 40, np.uint8)
    image[30:60, 20:50] = 250
    points = np.zeros((5, 2))
    around = pixels.surroundings(image, Face(points, (20, 30, 30, 30)))
    assert around is not None
    assert around[:192] == pytest.approx([40 / 255] * 192, abs=1e-6) and around[192:] == pytest.approx(
        [40 / 255] * 3 + [0] * 3, abs=1e-6
    )
    assert pixels.surroundings(image, Face(points, (0, 0, 80, 80))) is None


def test_face_values():
    faces = [Face(np.zeros((5, 2)), (10, 20, 40, 20), 0.9), Face(np.zeros((5, 2)), (0, 0, 5, 5), 0.4)]
    image = np.zeros((100, 200, 3), np.uint8)
    assert pixels.face_values(image, faces) == pytest.approx([0.9, 0, 1, 0.2, 0.2, 0.15, 0.3])
    assert np.isnan(pixels.face_values(image, [])[3:]).all() and pixels.face_values(image, [])[1] == 1


def test_sample_is_even_over_all_sources(tmp_path):
    for name, count in (("a", 30), ("b", 10), ("c", 5)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number:03d}.png").write_bytes(b"never opened")
    words = [str(tmp_path / name) for name in "abc"]
    settings = AuditSettings(real=(words[0], words[1]), fake=(words[2],), limit=8)
    found = survey(settings)
    assert (found.total(0), found.total(1)) == (40, 5)
    names = [(picked.label, picked.name) for picked in sample(settings, found)]
    twice = replace(settings, real=(*settings.real, *settings.real))  # one that is named twice is one
    assert [(each.label, each.name) for each in sample(twice, survey(twice))] == names
    assert [name for label, name in names if not label] == [
        *(f"a/{number:03d}.png" for number in (2, 7, 12, 17, 22, 27)),
        *(f"b/{number:03d}.png" for number in (2, 7)),
    ]
    assert sum(label for label, _ in names) == 5


def test_labelled_source_gives_only_its_class(tmp_path):
    lines = ["file,label,group,split"]
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(saved("PNG"))
        lines.append(f"{number}.png,{number % 2},g{number // 4},{'train' if number < 6 else 'test'}")
    table = tmp_path / "all.csv"
    table.write_text("\n".join(lines) + "\n")
    settings = AuditSettings(real=(str(table),), fake=(str(table),))
    found = survey(settings)
    labels = [(picked.label, picked.record.label) for picked in sample(settings, found)]
    assert labels == [(0, 0)] * 5 + [(1, 1)] * 5
    assert found.in_both_classes() == 3 and found.straddling() == (1, [f"{tmp_path.name}:g1"])
    trained = AuditSettings(real=(str(table),), fake=(str(table),), split=("train",))
    assert [picked.record.origin for picked in sample(trained, survey(trained))][:3] == [
        "0.png",
        "2.png",
        "4.png",
    ]
    table.write_text("\n".join(line for line in lines if ",1," not in line) + "\n")
    with pytest.raises(UserError, match="no fake pictures"):
        survey(settings)


def test_drawn_source_is_cut_off():
    settings = AuditSettings(real=("toyfaces",), fake=("toyfaces",), limit=3)
    assert len(list(sample(settings, survey(settings)))) == 6


def test_nearest():
    codes = np.random.default_rng(0).integers(0, 2**63, (600, 4)).astype(np.uint64)
    codes[577] = codes[3] ^ np.uint64(5)
    best, where = nearest(codes, codes, same=True)
    assert (best[577], where[577], best[3], where[3]) == (8, 3, 8, 577)
    assert (nearest(codes[:5], codes)[0] == 0).all()


def test_families_follow_chains():
    assert families(np.array([[0, 1], [1, 4]]), 5).tolist() == [0, 0, 1, 2, 0]
    assert families(np.zeros((0, 2), np.int64), 2).tolist() == [0, 1]
