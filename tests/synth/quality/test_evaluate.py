import base64
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner
from PIL import Image

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.errors import UserError
from crossfake.images import save_png
from crossfake.synth.cli import synth
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.quality import cache
from crossfake.synth.quality.evaluate import evaluate
from crossfake.synth.quality.features import InceptionFeatures
from crossfake.synth.quality.table import format_table, with_interval
from crossfake.synth.sampling.models import save_model
from crossfake.synth.settings import EvaluateSettings

FIGURES = [
    "fid",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "lpips",
    "memory",
    "swd",
    "spectrum",
]
FREE = ("swd", "spectrum")  # what needs no weights


def _shards(
    folder: Path, seed: int, n: int = 24, size: int = 16, label: int = 1, grain: int = 4, crop: str = "none"
) -> Path:
    """Random images whose blocks of ``grain`` pixels have one colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, size // grain, size // grain, 3), dtype=np.uint8)
    images = coarse.repeat(grain, axis=1).repeat(grain, axis=2)
    generator = "blocks:01234567" if label else ""
    rows = [
        Row(label=label, source="blocks", generator=generator, split="train", group=str(i)) for i in range(n)
    ]
    with ShardWriter(folder, size=size, attributes={"crop": {"policy": crop}}) as writer:
        writer.extend(images, rows)
    return folder


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _shards(tmp_path_factory.mktemp("fakes"), seed=1)


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "trunk.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    return file


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CROSSFAKE_WEIGHTS", raising=False)


def test_everything_is_measured_and_written(
    reals: Path, fakes: Path, random_inception: Path, squeezenet: Path
) -> None:
    settings = EvaluateSettings(
        reals,
        fakes,
        64,
        random_inception,
        "squeeze",
        squeezenet,
        device="cpu",
        baseline=True,
        precision="fp32",
        real_split="all",
    )
    result = evaluate(settings)
    assert json.loads((fakes / "quality.json").read_text()) == result
    assert (result["n_real"], result["n_fake"]) == (40, 24)
    assert list(result["skipped"]) == ["detectability"] and "too few" in result["skipped"]["detectability"]
    assert list(result["details"]) == FIGURES
    for name in FIGURES:
        assert np.isfinite(result[name]) and result[name] == result["details"][name]["value"] >= 0
    fid = result["details"]["fid"]
    assert fid["interval"][0] < fid["value"] < fid["interval"][1]
    assert fid["debiased"] < fid["value"] and fid["baseline"]["debiased"] < fid["baseline"]["value"]
    assert fid["baseline"]["n"] == [20, 20] and fid["dtype"] == "float32" and not fid["network"]["published"]
    for share in ("precision", "recall", "coverage"):
        low, high = result["details"][share]["interval"]
        assert 0 <= low <= result[share] <= high <= 1
    assert result["details"]["lpips"]["pairs"] == 12 and result["details"]["lpips"]["real"]["pairs"] == 20
    assert result["details"]["swd"]["baseline"]["n"] == [20, 20]
    assert all(result["details"][name]["n"] == [40, 24] for name in ("fid", "kid", "recall", "memory"))
    assert len(result["details"]["spectrum"]["decibels"]["fake"]["mean"]) == 8
    assert result["fake"]["generators"] == ["blocks:01234567"]
    assert any("trunk.pth is not the squeeze network" in text for text in result["warnings"])
    table = format_table(result)
    assert (
        "FID (64-d, not comparable with FID)" in table
        and "KID (64-d, not comparable with KID)" in table
        and "precision (64-d) " in table
        and "± is half of the 95% interval" in table
        and "less small-sample bias" in table
        and "n: 40 real, 24 fake, 16×16" in table
        and "16×16" in table
    )
    assert result["details"]["fid"]["name"] == "FID (64-d, not comparable with FID)"
    assert not re.search(r"\bFID [\d.]", table) and "<th>FID</th>" not in (fakes / "quality.html").read_text()
    (fakes / "quality.json").unlink()


def test_fid_of_shards_equals_the_formula(
    reals: Path, fakes: Path, random_inception: Path, tmp_path: Path
) -> None:
    network = InceptionFeatures(random_inception, 64, torch.device("cpu"), "fp32")
    a, b = (
        network(torch.from_numpy(shards.read_many(range(len(shards)))).permute(0, 3, 1, 2)).astype(np.float64)
        for shards in (ShardSet(reals), ShardSet(fakes))
    )
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sum(covariances)) - 2 * roots
    options = {"metrics": ("fid",), "precision": "fp32", "device": "cpu", "out": tmp_path / "q.json"}
    result = evaluate(EvaluateSettings(reals, fakes, 64, random_inception, real_split="all", **options))
    assert result["fid"] == pytest.approx(expected, rel=1e-3)


def test_the_second_evaluation_sees_only_fakes(
    reals: Path, fakes: Path, random_inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EvaluateSettings(
        reals, fakes, 64, random_inception, metrics=("fid",), device="cpu", batch=5, out=tmp_path / "q.json"
    )
    first = evaluate(settings)
    assert len(list(cache.folder().iterdir())) == 1
    seen: list[int] = []
    plain = InceptionFeatures.__call__
    monkeypatch.setattr(
        InceptionFeatures, "__call__", lambda self, x: (seen.append(len(x)), plain(self, x))[1]
    )
    second = evaluate(settings)
    assert second["details"] == first["details"]
    assert sum(seen) == 24  # the fakes


def test_missing_weights_leave_their_figures_out(reals: Path, fakes: Path, tmp_path: Path) -> None:
    result = evaluate(EvaluateSettings(reals, fakes, device="cpu", out=tmp_path / "q.json"))
    assert list(result["details"]) == ["swd", "spectrum"]
    assert "pt_inception" in result["skipped"]["fid"] and "alexnet" in result["skipped"]["lpips"]
    assert "fid" not in result and "\n" not in result["skipped"]["fid"]
    assert "fid, kid, prdc left out: " in format_table(result)


def test_nothing_possible_is_an_error(reals: Path, fakes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pt_inception"):
        evaluate(EvaluateSettings(reals, fakes, metrics=("fid",), device="cpu", out=tmp_path / "q.json"))
    assert not (tmp_path / "q.json").exists()


def test_a_named_file_must_be_right(reals: Path, fakes: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_text("no")
    for wrong in ({"inception": tmp_path / "none.pth"}, {"inception": tmp_path / "bad.pth"}):
        with pytest.raises(UserError, match=wrong["inception"].name):
            evaluate(EvaluateSettings(reals, fakes, device="cpu", out=tmp_path / "q.json", **wrong))
    trunk = {"metrics": ("lpips",), "lpips_weights": tmp_path / "bad.pth"}
    with pytest.raises(UserError, match=r"bad\.pth"):
        evaluate(EvaluateSettings(reals, fakes, device="cpu", out=tmp_path / "q.json", **trunk))


def test_limit_split_and_seed_choose_the_images(reals: Path, fakes: Path, tmp_path: Path) -> None:
    def run(**options: object) -> dict:
        settings = {"metrics": ("spectrum",), "device": "cpu", "out": tmp_path / "q.json", **options}
        return evaluate(EvaluateSettings(reals, fakes, **settings))

    assert run(real_split="test")["n_real"] == 8
    few = run(limit=10)
    assert (few["n_real"], few["n_fake"]) == (10, 10)
    assert run(limit=10)["details"] == few["details"] != run(limit=10, seed=1)["details"]


def test_two_images_are_enough_and_one_is_not(
    reals: Path, fakes: Path, random_inception: Path, tmp_path: Path
) -> None:
    options = {"inception": random_inception, "dims": 64, "device": "cpu", "out": tmp_path / "q.json"}
    result = evaluate(
        EvaluateSettings(reals, fakes, limit=2, baseline=True, metrics=("fid", *FREE), **options)
    )
    assert all(np.isfinite(result[name]) for name in ("fid", *FREE))
    assert result["details"]["fid"]["standard_error"] is None
    assert any("singular" in text for text in result["warnings"])
    assert "±" not in format_table(result)
    one = _shards(tmp_path / "one", 3, n=1)
    with pytest.raises(UserError, match="one has 1 image: two"):
        evaluate(EvaluateSettings(reals, one, device="cpu"))


def test_flat_grey_images_give_figures(random_inception: Path, squeezenet: Path, tmp_path: Path) -> None:
    for label, name in enumerate(("real", "fake")):
        with ShardWriter(tmp_path / name, size=16) as writer:
            for _ in range(8):
                writer.append(
                    np.full((16, 16, 3), 90 + 40 * label, np.uint8), Row(label=label, source="grey")
                )
    sides = tmp_path / "real", tmp_path / "fake"
    result = evaluate(EvaluateSettings(*sides, 64, random_inception, "squeeze", squeezenet, device="cpu"))
    assert all(np.isfinite(result[name]) for name in FIGURES)
    assert result["lpips"] == result["spectrum"] == 0


def test_what_cannot_be_compared_is_named(reals: Path, fakes: Path, tmp_path: Path) -> None:
    large = _shards(tmp_path / "large", 0, size=32)
    with pytest.raises(UserError, match="16².*32²: prepare both"):
        evaluate(EvaluateSettings(reals, large, device="cpu"))
    with pytest.raises(UserError, match="split val"):
        evaluate(EvaluateSettings(reals, fakes, real_split="val", device="cpu"))
    with pytest.raises(UserError, match="has 0 real images"):
        evaluate(EvaluateSettings(fakes, fakes, device="cpu"))
    with pytest.raises(UserError, match="holds neither shards nor pictures"):
        evaluate(EvaluateSettings(reals, tmp_path, device="cpu"))
    with pytest.raises(UserError, match="cannot be written"):
        evaluate(EvaluateSettings(reals, fakes, device="cpu", out=tmp_path / "no" / "q.json"))
    broken = tmp_path / "broken"
    shutil.copytree(fakes, broken)
    raw = (broken / "00000.h5").read_bytes()
    (broken / "00000.h5").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="broken"):
        evaluate(EvaluateSettings(reals, broken, device="cpu", metrics=FREE))


def test_reals_as_fakes_and_other_crops_are_noted(reals: Path, tmp_path: Path) -> None:
    others = _shards(tmp_path / "others", 5, label=0, crop="face")
    warnings = evaluate(EvaluateSettings(reals, others, metrics=("spectrum",), device="cpu"))["warnings"]
    assert any("holds no fakes" in text for text in warnings)
    assert any("cropped" in text for text in warnings)


def test_sizes_that_do_not_halve_skip_the_pyramid(tmp_path: Path) -> None:
    real, fake = (
        _shards(tmp_path / name, 0, size=20, label=label) for label, name in enumerate(("real", "fake"))
    )
    result = evaluate(EvaluateSettings(real, fake, metrics=FREE, device="cpu"))
    assert "power of two" in result["skipped"]["swd"] and "spectrum" in result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": 100}, "no dims 100: choose one of 2048, 768, 192, 64"),
        ({"metrics": ("fid", "psnr")}, "--metrics psnr is unknown"),
        ({"metrics": ()}, "--metrics none"),
        ({"lpips_net": "resnet"}, "no lpips_net 'resnet': choose one of alex, vgg, squeeze"),
        ({"limit": 1}, "--limit"),
        ({"batch": -1}, "--batch"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_settings_say_what_is_wrong(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluateSettings(Path("a"), Path("b"), **options)


def test_command_prints_the_table_and_one_line_per_error(reals: Path, fakes: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.json"
    command = ["evaluate", "--real", str(reals), "--fake", str(fakes), "--device", "cpu", "--out", str(out)]
    done = CliRunner().invoke(synth, [*command, "--metrics", "spectrum"])
    assert done.exit_code == 0 and "power spectrum, dB" in done.stdout and out.exists()
    failed = CliRunner().invoke(synth, [*command, "--metrics", "fid"])
    assert failed.exit_code == 2 and len(failed.stderr.strip().splitlines()) == 1


def test_pictures_of_a_folder_are_measured_as_shards_are(reals: Path, fakes: Path, tmp_path: Path) -> None:
    """PNG keeps every value, so the figures are the same."""
    for name, folder in (("real", reals), ("fake", fakes)):
        shards = ShardSet(folder)
        (tmp_path / name).mkdir()
        for row in range(len(shards)):
            save_png(shards.read(row), tmp_path / name / f"{row:03}.png")
    options = {"metrics": ("spectrum",), "device": "cpu", "out": tmp_path / "q.json"}
    plain = evaluate(EvaluateSettings(reals, fakes, real_split="all", **options))["spectrum"]
    assert evaluate(EvaluateSettings(tmp_path / "real", tmp_path / "fake", **options))[
        "spectrum"
    ] == pytest.approx(plain)


def test_pictures_must_be_square_and_alike(reals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    with pytest.raises(UserError, match="holds neither shards nor pictures nor a model"):
        evaluate(EvaluateSettings(reals, folder, device="cpu"))
    save_png(np.zeros((16, 16, 3), np.uint8), folder / "a.png")
    (folder / "b.png").write_text("no picture")
    save_png(np.zeros((8, 8, 3), np.uint8), folder / "c.png")
    with pytest.raises(UserError, match=r"c\.png has 8×8 pixels and a\.png 16×16: bring both"):
        evaluate(EvaluateSettings(reals, folder, device="cpu"))
    save_png(np.zeros((8, 4, 3), np.uint8), folder / "c.png")
    with pytest.raises(UserError, match=r"c\.png is not square \(4×8\)"):
        evaluate(EvaluateSettings(reals, folder, device="cpu"))
    with pytest.raises(UserError, match="nowhere is not there"):
        evaluate(EvaluateSettings(reals, tmp_path / "nowhere", device="cpu", out=tmp_path / "q.json"))


def _untrained(folder: Path) -> None:
    torch.manual_seed(0)
    network = {"size": 16, "channels": 64}
    card = {"size": 16, "channels": 64, "network": network, "classes": []}
    save_model(folder, "stylegan2", FAMILIES.get("stylegan2").generator(**network), card)


def test_a_model_is_sampled_and_swept(reals: Path, random_inception: Path, tmp_path: Path) -> None:
    _untrained(tmp_path / "model")
    settings = EvaluateSettings(
        reals,
        tmp_path / "model",
        64,
        random_inception,
        metrics=("fid", "prdc", "spectrum"),
        device="cpu",
        limit=20,
        sweep=(0.5, 1.0),
    )
    result = evaluate(settings)
    assert result["n_fake"] == 20 and result["fake"]["generators"][0].startswith("stylegan2:")
    assert [point["psi"] for point in result["sweep"]] == [0.5, 1.0]
    assert result["sweep"][1]["fid"] == pytest.approx(result["fid"], rel=1e-5)
    assert result["sweep"][0]["fid"] != pytest.approx(result["fid"], rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "generator.safetensors",
        "model.json",
        "quality.html",
        "quality.json",
    ]
    page = (tmp_path / "model" / "quality.html").read_text()
    content = re.search(r'src="data:image/png;base64,([^"]*)"', page)
    assert content is not None
    with Image.open(io.BytesIO(base64.b64decode(content[1]))) as sheet:
        assert sheet.width > 12 * 16 and sheet.height > 4 * 16
    assert (
        "FID (64-d, not comparable with FID) and recall over truncation psi" in page
        and "Mean log power" in page
    )
    assert not re.search(r'https?://|d="[^"]*nan', page)
    with pytest.raises(UserError, match="no model to truncate"):
        evaluate(EvaluateSettings(reals, reals, sweep=(0.5,)))


def test_a_sweep_without_its_weights_is_left_out(reals: Path, tmp_path: Path) -> None:
    _untrained(tmp_path / "model")
    settings = EvaluateSettings(
        reals, tmp_path / "model", metrics=("spectrum",), device="cpu", limit=8, sweep=(0.5, 1.0)
    )
    result = evaluate(settings)
    assert result["spectrum"] > 0 and list(result["skipped"]) == ["fid over psi", "prdc over psi"]
    assert "over truncation psi" not in (tmp_path / "model" / "quality.html").read_text()


def test_a_folder_of_pictures_can_be_measured_again(
    reals: Path, random_inception: Path, tmp_path: Path
) -> None:
    for k, image in enumerate(ShardSet(reals).read_many(range(8))):
        save_png(image, tmp_path / "pictures" / f"{k}.png")
    (tmp_path / "pictures" / "cut.png").write_bytes((tmp_path / "pictures" / "0.png").read_bytes()[:60])
    settings = EvaluateSettings(
        reals, tmp_path / "pictures", 64, random_inception, metrics=("fid", "spectrum"), device="cpu"
    )
    first, second = evaluate(settings), evaluate(settings)
    assert first["fid"] == second["fid"] and first["n_fake"] == 8
    assert any("1 of the pictures" in text and "1 unreadable" in text for text in first["warnings"])
    (tmp_path / "pictures" / "film.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="film.mp4 is a video"):
        evaluate(settings)


def test_a_model_is_asked_for_no_more_than_can_be_kept(
    reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _untrained(tmp_path / "model")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))
    for size, limit, message in ((16, 10**8, "GB free"), (32, 8, "makes images of 16², the reals have 32²")):
        real = reals if size == 16 else _shards(tmp_path / "larger", seed=3, size=32, label=0)
        settings = EvaluateSettings(
            real, tmp_path / "model", metrics=("spectrum",), device="cpu", limit=limit
        )
        with pytest.raises(UserError, match=message):
            evaluate(settings)


@pytest.mark.parametrize(
    "log", ['{"step": 1, "swd": 3.0}\n{"step": 2, "swd": 2.0}\n', "not json}\n", "[1]\n{}\n"]
)
def test_a_log_of_another_program_is_no_curve(reals: Path, fakes: Path, tmp_path: Path, log: str) -> None:
    shutil.copytree(fakes, tmp_path / "fakes")
    (tmp_path / "log.jsonl").write_text(log)
    evaluate(EvaluateSettings(reals, tmp_path / "fakes", metrics=("spectrum",), device="cpu"))
    assert "Figures over training" not in (tmp_path / "fakes" / "quality.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": Path("figures.html")}, "where the page would go"),
        ({"trunc": 0.5}, "no model to truncate"),
        (
            {"metrics": ("fid",), "features": ("timm:resnet18",), "weights": (Path(__file__),)},
            "for the figure fd",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(reals: Path, fakes: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(EvaluateSettings(**{"real": reals, "fake": fakes, **change}))


def test_reals_are_no_model(reals: Path, tmp_path: Path) -> None:
    _untrained(tmp_path / "model")
    for path, message in (
        (tmp_path / "model", "is a model: name shards or pictures of reals"),
        (Path(__file__), "is a file"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(EvaluateSettings(path, reals, out=tmp_path / "q.json"))


def test_training_figures_are_on_the_page(reals: Path, fakes: Path, tmp_path: Path) -> None:
    shutil.copytree(fakes, tmp_path / "run" / "fakes")
    lines = [{"step": k, "kimg": float(k), "swd": 30.0 - k} for k in range(1, 4)]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluate(EvaluateSettings(reals, tmp_path / "run" / "fakes", metrics=("spectrum",), device="cpu"))
    page = (tmp_path / "run" / "fakes" / "quality.html").read_text()
    assert "Figures over training" in page and "27.00 to 29.00" in page


def test_another_network_is_compared_by(reals: Path, fakes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "r.pth")
    result = evaluate(
        EvaluateSettings(
            reals,
            fakes,
            metrics=("fd",),
            features=("timm:resnet10t",),
            weights=(tmp_path / "r.pth",),
            device="cpu",
            out=tmp_path / "q.json",
        )
    )
    assert result["fd-resnet10t"] > 0 and result["details"]["fd-resnet10t"]["resize"] == "clean"
    assert "Fréchet distance, resnet10t" in format_table(result)


def test_generate_measures_what_it_made(reals: Path, tmp_path: Path) -> None:
    _untrained(tmp_path / "model")
    out = tmp_path / "fakes"
    command = [
        "generate",
        "--n",
        "12",
        "--model",
        str(tmp_path / "model"),
        "--out",
        str(out),
        "--real",
        str(reals),
    ]
    found = CliRunner().invoke(synth, [*command, "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert "power spectrum, dB" in found.stdout and f"page: {out / 'quality.html'}" in found.stdout
    assert json.loads((out / "quality.json").read_text())["n_fake"] == 12


def test_a_second_evaluation_keeps_the_figures_of_the_first(
    reals: Path, fakes: Path, random_inception: Path, tmp_path: Path
) -> None:
    out = tmp_path / "q.json"
    options = {"dims": 64, "inception": random_inception, "device": "cpu", "real_split": "all", "out": out}
    first = evaluate(EvaluateSettings(reals, fakes, metrics=("fid", "kid", "spectrum"), limit=20, **options))
    second = evaluate(EvaluateSettings(reals, fakes, metrics=("swd", "spectrum"), **options))
    assert list(second["details"]) == ["fid", "kid", "swd", "spectrum"]
    for name in ("fid", "kid"):
        assert second[name] == first[name] and second["details"][name] == first["details"][name]
    assert second["spectrum"] != first["spectrum"]  # of all images: the newest wins
    assert [run["figures"] for run in second["kept"]] == [["fid", "kid"]]
    assert json.loads(out.read_text()) == second
    table = format_table(second)
    head = "FID (64-d, not comparable with FID), KID (64-d, not comparable with KID)"
    when = first["date"][:16].replace("T", " ")
    kept = f"kept from {when}, of 20 reals and 20 fakes: {head}, measured with limit 20 (now not given)"
    assert f"note: {kept}" in table and "20 fakes only" not in table
    page = out.with_suffix(".html").read_text()
    assert kept in page and "data:image/png" in page  # the nearest reals of the first, without its network

    third = evaluate(EvaluateSettings(reals, fakes, metrics=("fid",), **options))
    assert [run["figures"] for run in third["kept"]] == [["kid"], ["swd", "spectrum"]]
    assert third["details"]["fid"]["n"] == [40, 24] and third["kid"] == first["kid"]
    fourth = evaluate(EvaluateSettings(reals, fakes, metrics=("kid", *FREE), **options))
    assert [run["figures"] for run in fourth["kept"]] == [["fid"]]
    assert "measured with" not in format_table(fourth)


@pytest.mark.parametrize("other", ["fakes", "reals", "split", "file"])
def test_figures_of_other_images_are_set_aside_and_named(
    reals: Path, fakes: Path, tmp_path: Path, other: str
) -> None:
    out = tmp_path / "q.json"
    options = {"device": "cpu", "out": out}
    first = evaluate(EvaluateSettings(reals, fakes, metrics=FREE, **options))
    if other == "file":
        out.write_text("[1, 2]")
    real = _shards(tmp_path / "real", seed=7, label=0) if other == "reals" else reals
    fake = _shards(tmp_path / "fake", seed=8) if other == "fakes" else fakes
    split = "train" if other == "split" else None
    result = evaluate(EvaluateSettings(real, fake, metrics=("spectrum",), real_split=split, **options))
    assert list(result["details"]) == ["spectrum"] and "swd" not in result and "kept" not in result
    (aside,) = tmp_path.glob("q-*.json")
    assert aside.with_suffix(".html").is_file()
    assert other == "file" or json.loads(aside.read_text()) == first
    (said,) = [text for text in result["warnings"] if aside.name in text]
    assert "q.json" in said and ("swd, spectrum" in said) == (other != "file")


def test_a_models_figures_of_fewer_images_are_kept_and_those_of_another_model_are_not(
    reals: Path, random_inception: Path, tmp_path: Path
) -> None:
    _untrained(tmp_path / "model")
    options = {"dims": 64, "inception": random_inception, "device": "cpu"}
    settings = EvaluateSettings(
        reals, tmp_path / "model", metrics=("fid",), limit=20, sweep=(0.5, 1.0), **options
    )
    first = evaluate(settings)
    second = evaluate(EvaluateSettings(reals, tmp_path / "model", metrics=("spectrum",), limit=10, **options))
    assert second["fid"] == first["fid"] and second["sweep"] == first["sweep"]
    assert (
        second["kept"][0]["figures"] == ["fid", "sweep"] and "nearest" not in second
    )  # these are other images
    assert "over truncation psi" in (tmp_path / "model" / "quality.html").read_text()
    third = EvaluateSettings(
        reals, tmp_path / "model", metrics=("spectrum",), limit=10, trunc=0.5, device="cpu"
    )
    assert "fid" not in evaluate(third)
    assert len(list((tmp_path / "model").glob("quality-*.json"))) == 1


def test_pictures_of_a_folder_are_the_same_images_again(reals: Path, tmp_path: Path) -> None:
    for k, image in enumerate(ShardSet(reals).read_many(range(8))):
        save_png(image, tmp_path / "pictures" / f"{k}.png")
    options = {"device": "cpu", "limit": 8}
    evaluate(EvaluateSettings(reals, tmp_path / "pictures", metrics=("swd",), **options))
    again = evaluate(EvaluateSettings(reals, tmp_path / "pictures", metrics=("spectrum",), **options))
    assert list(again["details"]) == ["swd", "spectrum"]


def test_intervals_are_given_by_half_of_them_or_by_both_ends() -> None:
    """A share of 0 is one of up to 0.06, not of −0.03 to 0.03."""
    assert with_interval({"value": 2.5, "interval": [2.3, 2.7]}) == "2.500 ± 0.200"
    assert with_interval({"value": 2.5, "standard_error": 0.1}) == "2.500 ± 0.196"
    assert with_interval({"value": 0.9, "interval": [0.4, 1.0]}) == "0.900 (0.400 to 1.000)"
    assert with_interval({"value": 2.5}) == "2.500" and with_interval({}) == ""
    assert with_interval({"value": 1.0, "interval": [1.0, 1.0]}).startswith("1.000 ± 0.0")
