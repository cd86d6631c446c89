"""Energy from counters that start over, and none where there are no counters."""

import pytest

from crossfake.energy import Meter


def write(root, package, used, most=1000):
    zone = root / f"intel-rapl:{package}"
    zone.mkdir(exist_ok=True)
    (zone / "energy_uj").write_text(f"{used}\n")
    (zone / "max_energy_range_uj").write_text(f"{most}\n")


def test_packages_are_added_and_counters_start_over(tmp_path):
    write(tmp_path, 0, 100)
    write(tmp_path, 1, 990)
    with Meter(tmp_path) as meter:
        write(tmp_path, 0, 350)
        write(tmp_path, 1, 39)
    assert meter.joules == pytest.approx((250 + 50) / 1e6)


def test_no_counters(tmp_path):
    with Meter(tmp_path) as meter:
        pass
    assert meter.joules is None


def test_counters_that_may_not_be_read(tmp_path):
    write(tmp_path, 0, "secret")
    with Meter(tmp_path) as meter:
        pass
    assert meter.joules is None
