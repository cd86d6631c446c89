"""A hostile or damaged file is one line of text: nothing is run, nothing is allocated beyond what it holds."""

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from crossfake.detect.cli import detect
from crossfake.detect.importing.files import read_tensors
from crossfake.detect.importing.importer import import_detector
from crossfake.errors import UserError

TABLE = """
tiny:
  paper: none
  licence: none
  weights: none
  trained_on: [nothing]
  sees: {looks_at: picture, resize: 32, squeeze: true}
  model: published
  options: {architecture: test_resnet}
"""


class _Runs:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def _state(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    return {f"layer.{n}.weight": torch.from_numpy(rng.normal(size=(4, n + 1))).float() for n in range(6)}


def _write(kind: str, path: Path) -> Path:
    state = _state(np.random.default_rng(0))
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            for name, tensor in state.items():
                file[name.replace(".", "/")] = tensor.numpy()
    else:
        checkpoint = {"model": state, "total_steps": 3}
        if kind == "tar":  # SBI's: the optimiser beside the weights
            checkpoint |= {
                "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": []}
            }
        torch.save(checkpoint, path, _use_new_zipfile_serialization=kind != "old-pth")
    return path


KINDS = ("pth", "old-pth", "tar", "safetensors", "h5")


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(kind: str, tmp_path: Path) -> None:
    wanted = _state(np.random.default_rng(0))
    found = read_tensors(_write(kind, tmp_path / "a"))
    assert {name.replace("/", "."): tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in wanted.items()
    }


def _fuzz(kind: str, path: Path, count: int) -> int:
    """How many of so many mutations are refused; whatever is read is no larger than the file."""
    content = np.frombuffer(_write(kind, path).read_bytes(), np.uint8)
    rng, refused = np.random.default_rng(1), 0
    for number in range(count):
        mutated = content.copy()
        for _ in range(1 + number % 4):
            start = int(rng.integers(len(mutated) if number % 3 else min(400, len(mutated))))
            size = int(rng.integers(1, 9))
            mutated[start : start + size] = rng.integers(0, 256, len(mutated[start : start + size]))
        if number % 10 == 9:
            mutated = mutated[: int(rng.integers(1, len(mutated)))]
        path.write_bytes(mutated.tobytes())
        try:
            found = read_tensors(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert sum(tensor.numel() * 2 for tensor in found.values()) <= len(content)
    return refused


@pytest.mark.parametrize("kind", KINDS)
def test_some_mutated_files_are_data_or_one_line(kind: str, tmp_path: Path) -> None:
    assert _fuzz(kind, tmp_path / "a", 60) > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_mutated_files_are_data_or_one_line(kind: str, tmp_path: Path) -> None:
    assert _fuzz(kind, tmp_path / "a", 1000) > 100


def test_a_call_is_refused_by_name_and_not_made(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}, "also": _Runs()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="asks for (posix|nt).system, which is refused"):
        read_tensors(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as whole,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for member in whole.infolist():
            small.writestr(member.filename, whole.read(member))
    with pytest.raises(UserError, match="compressed members"):
        read_tensors(tmp_path / "b.pth")


def test_an_archive_of_tar_is_said_to_be_none(tmp_path: Path) -> None:
    _write("pth", tmp_path / "a.pth")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.pth", "a.pth")
    with pytest.raises(UserError, match="it is no file of torch.save"):
        read_tensors(tmp_path / "a.tar")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    torch.save({"x": torch.tensor([1.0, value])}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not finite"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x80\x04.", b"GIF89a" + bytes(40), b"PK\x03\x04" + bytes(40)]
)
def test_what_is_no_checkpoint_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match="a.pth: "):
        read_tensors(tmp_path / "a.pth")


def test_what_a_training_leaves_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.rand(1, 3)).sum().backward()
    optimiser.step()
    torch.save(
        {
            "state_dict": {f"module.{name}": tensor for name, tensor in layer.state_dict().items()},
            "optimizer": optimiser.state_dict(),
            "best": np.float64(0.5),
        },
        tmp_path / "a.tar",
    )
    assert set(read_tensors(tmp_path / "a.tar")) == {"weight", "bias"}


def test_another_detectors_file_is_one_line(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(1, 4)}, tmp_path / "a.safetensors")
    (tmp_path / "t.yaml").write_text(TABLE)
    for name, words in (
        ("tiny", "it lacks"),
        ("npr", "is no npr"),
        ("univfd", "--backbone"),
        ("nrp", "'npr'"),
    ):
        with pytest.raises(UserError) as error:
            import_detector(tmp_path / "a.safetensors", name, tmp_path / "out", tmp_path / "t.yaml")
        assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_lists_and_asks(tmp_path: Path) -> None:
    listed = CliRunner().invoke(detect, ["import", "--list"])
    assert listed.exit_code == 0 and "Apache-2.0" in listed.output and "univfd" in listed.output
    asked = CliRunner().invoke(detect, ["import"])
    assert asked.exit_code == 2 and "--list" in asked.output
