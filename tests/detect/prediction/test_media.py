import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import Frame
from crossfake.datasets.faces import Face
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.prediction import media
from crossfake.detect.prediction.media import (
    BLURRED,
    Input,
    find_inputs,
    jpeg_header,
    jpeg_quality,
    open_frames,
    open_media,
    open_one,
    sharpness,
)
from crossfake.errors import UserError

WHOLE = Cropper(16, "none")


def _picture(path: Path, number: int = 0, size: int = 64, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(toyface(number, size)).save(path, **options)
    return path


def _names(*paths: str | Path, **options: object) -> list[str]:
    return [Path(each.name).name for each in find_inputs(paths, **options)]  # type: ignore[arg-type]


def test_files_folders_and_patterns_in_the_order_given(tmp_path: Path) -> None:
    for name in ("b.png", "in/d.png", "in/deep/c.jpg", "[1].png"):
        _picture(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("ignored")
    assert _names(tmp_path / "in", tmp_path / "b.png") == ["d.png", "c.jpg", "b.png"]
    assert _names(tmp_path / "**" / "*.png") == ["[1].png", "b.png", "d.png"]
    assert _names(tmp_path / "[1].png") == ["[1].png"]  # a name before a pattern
    assert _names(tmp_path / "in", leave_out=tmp_path / "in" / "deep") == ["d.png"]


def test_what_is_not_there_is_said_before_anything_is_judged(tmp_path: Path, real: Path) -> None:
    _picture(tmp_path / "a.png")
    for name, match in (
        ("none.png", "is not there"),
        ("*.gif", "is not there"),
        ("*\0b", "is not there"),
        (real, "shard folder: judge it with 'detect evaluate"),
        ("http://localhost/a.png", "is a URL.*--allow-urls"),
    ):
        with pytest.raises(UserError, match=match):
            find_inputs(["a.png", name])
    with pytest.raises(UserError, match="no web address"):
        find_inputs(["file:///etc/passwd"], allow_urls=True)


def test_a_list_on_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _picture(tmp_path / "ü 1.png")
    _picture(tmp_path / "in" / "b.png")
    lines = "ü 1.png\n\nnone.png\r\nin\nhttps://localhost/x.png\n-\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    found = list(find_inputs(["-"]))
    assert [each.name for each in found] == [
        "ü 1.png",
        "none.png",
        "in/b.png",
        "https://localhost/x.png",
        "-",
    ]
    assert [bool(each.refused) for each in found] == [False, True, False, True, True]
    problems = [media.problem for media in open_media(found, WHOLE)]
    assert "not there" in problems[1] and "--allow-urls" in problems[3] and problems[0] == problems[2] == ""


def test_odd_files_are_opened_or_say_why_not(tmp_path: Path) -> None:
    face = Image.fromarray(toyface(0, 64))
    face.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257).save(tmp_path / "wide.png")
    face.save(tmp_path / "moving.gif", save_all=True, append_images=[face, face])
    face.save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:700])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.png").symlink_to("nowhere")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    found = {Path(m.input.name).name: m for m in open_media(find_inputs([tmp_path]), WHOLE)}
    assert len(found) == 8
    for name in ("cmyk.jpg", "wide.png", "moving.gif"):
        assert found[name].looks[0].image.shape == (16, 16, 3) and found[name].size == (64, 64), name
    for name, reason in (
        ("cut.jpg", "cannot be read"),
        ("empty.png", "cannot be read (no known image format)"),
        ("text.jpg", "cannot be read (no known image format)"),
        ("folder.png", "cannot be read (No such file"),
        ("huge.png", "pixels"),
    ):
        assert reason in found[name].problem and not found[name].looks, name


def test_sizes_are_upright_and_those_of_the_whole_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (1600, 1200)).save(tmp_path / "a.jpg", exif=exif)
    assert open_one(Input("a", tmp_path / "a.jpg"), WHOLE).size == (1200, 1600)


@pytest.mark.parametrize("quality", [25, 49, 50, 75, 95, 100])
def test_jpeg_quality_is_the_one_that_was_asked_for(quality: int, tmp_path: Path) -> None:
    content = _picture(tmp_path / "a.jpg", quality=quality, progressive=quality > 50).read_bytes()
    size, table = jpeg_header(content)
    with Image.open(tmp_path / "a.jpg") as image:
        assert size == image.size and sorted(table) == sorted(image.quantization[0])  # type: ignore[attr-defined]
    assert jpeg_quality(table) == pytest.approx(quality, abs=2)
    for end in range(2, 400, 7):
        jpeg_header(content[:end])  # cut anywhere, it ends
    media = open_one(Input("a", tmp_path / "a.jpg"), WHOLE)
    assert ("compressed" in media.looks[0].reasons) == (quality < 49.5)


def test_sharpness_is_opencvs_and_blur_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    grey = cv2.cvtColor(noise, cv2.COLOR_RGB2GRAY).astype(np.float64)
    padded = np.pad(grey, 1, mode="reflect")
    laplace = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    assert sharpness(noise) == pytest.approx(laplace.var())
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    assert sharpness(smooth) < BLURRED
    Image.fromarray(smooth).save(tmp_path / "a.png")
    reasons = {size: open_one(Input("a", tmp_path / "a.png"), Cropper(size, "none")) for size in (64, 65)}
    assert reasons[64].looks[0].reasons == ("blurred",)
    assert reasons[65].looks[0].reasons == ("small-picture", "blurred")


def test_processes_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    for number in range(50):
        _picture(tmp_path / f"{number:02}.png", number, 16)
    (tmp_path / "07.png").write_text("broken")
    one, two = (list(open_media(find_inputs([tmp_path]), WHOLE, workers=n)) for n in (1, 2))
    assert [m.input for m in one] == [m.input for m in two] and len(one) == 50
    assert [m.problem for m in one] == [m.problem for m in two] and sum(bool(m.problem) for m in one) == 1
    for a, b in zip(one, two, strict=True):
        assert all(np.array_equal(x.image, y.image) for x, y in zip(a.looks, b.looks, strict=True))


def test_videos_by_frame(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from crossfake.datasets.sources.fixtures import face_video

    face_video(tmp_path / "a.mp4", 0, frames=10)
    media = open_one(Input("a", tmp_path / "a.mp4"), WHOLE, frames=5)
    assert media.kind == "video" and media.size == (96, 96) and media.rate == 25
    assert [look.frame for look in media.looks] == [1, 3, 5, 7, 9]
    (tmp_path / "b.mp4").write_text("no video")
    assert "cannot be read" in open_one(Input("b", tmp_path / "b.mp4"), WHOLE).problem


def test_every_face_of_a_photo_has_its_box(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    photos = sorted((real_data / "all-age-faces").glob("*.jpg"))
    sheet = Image.new("RGB", (2400, 1400), (90, 120, 90))
    for number, (left, side) in enumerate([(100, 900), (1200, 500), (1900, 130)]):
        sheet.paste(Image.open(photos[1300 + 700 * number]).convert("RGB").resize((side, side)), (left, 200))
    sheet.save(tmp_path / "sheet.jpg", quality=40)
    media = open_one(Input("a", tmp_path / "sheet.jpg"), Cropper(128, which="all"))
    assert media.size == (2400, 1400) and len(media.looks) + len(media.missed) == 3
    centers = [box[0] + box[2] / 2 for each in (*media.looks, *media.missed) if (box := each.box)]
    for center, (left, side) in zip(sorted(centers), [(100, 900), (1200, 500), (1900, 130)], strict=True):
        assert left + side * 0.25 < center < left + side * 0.75
    assert all("compressed" in look.reasons for look in media.looks)
    assert [look.person for look in media.looks] == list(range(len(media.looks)))
    largest = open_one(Input("a", tmp_path / "sheet.jpg"), Cropper(128))
    assert np.array_equal(largest.looks[0].image, media.looks[0].image)
    Image.new("RGB", (300, 300), "white").save(tmp_path / "blank.png")
    assert open_one(Input("a", tmp_path / "blank.png"), Cropper(128, which="all")).problem == "no face"


@pytest.mark.parametrize(("side", "expected"), [(16, 1), (200, 0)])
def test_small_pictures_are_opened_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, expected: int
) -> None:
    """A worker would take longer to start and to send them; one that was asked for is started all the same."""
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    for number in range(50):
        Image.fromarray(noise).save(tmp_path / f"{number:02}.png")
    asked: list[int] = []

    def here(work, tasks, workers):  # type: ignore[no-untyped-def]
        asked.append(workers)
        return ((task, work(task)) for task in tasks)

    monkeypatch.setattr(media, "map_in_order", here)
    for workers in (0, 2):
        assert len(list(open_media(find_inputs([tmp_path]), WHOLE, workers=workers))) == 50
    assert asked == [expected, 2]


def test_kinds_by_content_and_zip_archives_as_the_api_takes_them(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from crossfake.datasets.sources.fixtures import face_video

    _picture(tmp_path / "in" / "a.png").rename(tmp_path / "in" / "no ending")
    face_video(tmp_path / "in" / "film.mp4", 0, frames=10)
    (tmp_path / "in" / "film.mp4").rename(tmp_path / "in" / "film.jpg?w=300")
    content = {name: (tmp_path / "in" / name).read_bytes() for name in ("no ending", "film.jpg?w=300")}
    with zipfile.ZipFile(tmp_path / "in" / "set.zip", "w") as archive:
        for name, each in content.items():
            archive.writestr(f"deep/{name}", each)
        archive.writestr("../out.png", content["no ending"])
        archive.writestr("notes.txt", "text")
        archive.writestr("inner.zip", b"PK\3\4")
        archive.writestr("__MACOSX/._a.png", b"x")
    (tmp_path / "in" / "set.zip").rename(tmp_path / "in" / "set")  # its content says what it is

    def opened(*paths: Path) -> dict[str, tuple[str, int, str]]:
        media = open_media(find_inputs(paths), WHOLE, frames=5, keep_fetched=True)
        return {
            m.input.name.removeprefix(f"{tmp_path}/in/"): (m.kind, len(m.looks), m.problem) for m in media
        }

    folder = opened(tmp_path / "in")
    assert folder == {
        "film.jpg?w=300": ("video", 5, ""),
        "no ending": ("picture", 1, ""),
        "set": ("picture", 0, "an archive inside: name it itself"),
    }
    packed = opened(tmp_path / "in" / "set")
    assert packed == {
        "set/deep/film.jpg?w=300": ("video", 5, ""),
        "set/deep/no ending": ("picture", 1, ""),
        "set/../out.png": ("picture", 0, "unsafe name (it leads out of the archive)"),
        "set/notes.txt": ("picture", 0, "not a picture or video"),
        "set/inner.zip": ("picture", 0, "an archive inside: unpack it"),
    }
    for name, wrong in (("bad.zip", b"PK\3\4 no archive"), ("none.zip", b"PK\5\6" + bytes(18))):
        (tmp_path / name).write_bytes(wrong)
    problems = [
        m.problem for m in open_media(find_inputs([tmp_path / "bad.zip", tmp_path / "none.zip"]), WHOLE)
    ]
    assert "not a whole zip archive" in problems[0] and problems[1] == "the archive is empty"


def test_boxes_count_in_pixels_of_their_own_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may change its size on the way."""

    def found(image: np.ndarray, model: object, **_: object) -> list[Face]:
        side = image.shape[0] / 4
        return [Face(np.full((5, 2), np.nan), (side, side, 2 * side, 2 * side))]

    monkeypatch.setattr("crossfake.datasets.crops.find_faces", found)
    cropper = Cropper(16, "square", margin=1.0, which="all", enlarge=10, face_model=Path(__file__))
    frames = [Frame(n, toyface(0, side), n / 5) for n, side in enumerate((64, 64, 32, 128))]
    made = open_frames(Input("a"), iter(frames), cropper)
    assert made.size == (64, 64) and made.rate == pytest.approx(5)
    assert [(look.size, look.box) for look in made.looks] == [
        ((side, side), pytest.approx((side / 4, side / 4, side / 2, side / 2))) for side in (64, 64, 32, 128)
    ]
    assert [look.person for look in made.looks] == [0] * 4
    assert [look.seconds for look in made.looks] == [0, 0.2, 0.4, 0.6]


def test_frames_without_times_have_no_rate() -> None:
    frames = [Frame(n, toyface(0, 32)) for n in range(3)]
    made = open_frames(Input("a"), iter(frames), WHOLE)
    assert made.rate == 0 and {look.seconds for look in made.looks} == {None}
    assert open_frames(Input("a"), iter(()), WHOLE).problem == "no frame can be decoded"
