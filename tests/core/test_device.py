import pytest
import torch

from crossfake.device import autocast, pick_device, stored_device, team_name
from crossfake.errors import UserError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, and the second of the two processes on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_has_a_gpu_of_its_own(name: str) -> None:
    assert pick_device(name) == torch.device("cuda:1")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("gpus")
def test_processes_do_not_share_a_gpu() -> None:
    with pytest.raises(UserError, match="2 processes cannot share cuda:0: use --device auto"):
        pick_device("cuda:0")
    assert pick_device(stored_device("cuda:0")) == torch.device("cuda:1")
    assert stored_device("cpu") == "cpu" and stored_device("auto") == "auto"


def test_a_process_alone_goes_on_with_the_gpu_it_had(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert pick_device(stored_device("cuda:1")) == torch.device("cuda:1")
    with pytest.raises(UserError, match="there is no cuda:2: this machine has 2 GPUs"):
        pick_device("cuda:2")


def test_more_processes_than_gpus_is_one_line(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="start fewer processes"):
        pick_device("auto")


def test_processes_that_were_started_together_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert team_name() == ""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    assert "29500" in team_name() and "job7" in team_name()


@pytest.mark.parametrize("name", ["meta", "cuda:-1", "gpu", "", "xpu"])
def test_what_does_not_compute_is_no_device(name: str) -> None:
    with pytest.raises(UserError, match=f"there is no device '{name}' here: use auto, cpu, cuda"):
        pick_device(name)


def test_depthwise_convolutions_are_exact_under_autocast() -> None:
    torch.manual_seed(0)
    depthwise = torch.nn.Conv2d(8, 8, 3, groups=8)
    dense, grouped = torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=4)
    images = torch.randn(2, 8, 9, 9)
    with autocast(torch.device("cpu"), "bf16"):
        found = depthwise(images)
        assert dense(images).dtype is grouped(images).dtype is found.dtype is torch.bfloat16
    assert torch.equal(found, depthwise(images).bfloat16())  # rounded once, at the end
    with autocast(torch.device("cpu"), "fp32"):
        assert (
            torch.equal(depthwise(images), depthwise(images.float())) and dense(images).dtype is torch.float32
        )
