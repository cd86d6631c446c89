"""Keras's files as data: what h5py writes by default comes out, whatever leads elsewhere is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from crossfake.errors import UserError
from crossfake.inert.hdf5 import read_hdf5


def _write(path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        f"layer_{n}/layer_{n}/kernel:0": rng.normal(size=(3, n + 1)).astype(np.float32) for n in range(40)
    } | {"half": np.ones(3, np.float16), "empty": np.empty((0, 2), np.float32)}
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs["layer_names"] = [b"layer_0", b"layer_1"]
        file["words"] = "no numbers"
        file["whole"] = np.arange(3)
    return arrays


def test_arrays_come_out_as_h5py_reads_them(tmp_path: Path) -> None:
    arrays = _write(tmp_path / "a.h5")
    found = read_hdf5(tmp_path / "a.h5")
    assert set(found) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), values)


def _soft(file: h5py.File, _: Path) -> None:
    file["other"] = h5py.SoftLink("/layer")


def _external_link(file: h5py.File, folder: Path) -> None:
    file["other"] = h5py.ExternalLink(str(folder / "b.h5"), "/x")


def _external_data(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", (4,), "f4", external=[(str(folder / "raw"), 0, 16)])


def _filtered(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", data=np.zeros((64, 64), "f4"), compression="gzip")


def _chunked(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", data=np.zeros((64, 64), "f4"), chunks=(8, 8))


def _big_endian(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", data=np.zeros(4, ">f4"))


def _unwritten(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", (10**9,), "f4")


CASES = {
    "soft": (_soft, "a link"),
    "external-link": (_external_link, "links of a newer kind|a link"),
    "external-data": (_external_data, "data in another file"),
    "filter": (_filtered, "a filter"),
    "chunked": (_chunked, "chunked data"),
    "big-endian": (_big_endian, "numbers of an unusual kind"),
    "unwritten": (_unwritten, "more numbers than it has"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_leads_elsewhere_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, words = CASES[case]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, tmp_path)
    with pytest.raises(UserError, match=words):
        read_hdf5(tmp_path / "a.h5")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file["x"] = np.zeros(3, "f4")
    with pytest.raises(UserError, match="newer HDF5 format"):
        read_hdf5(tmp_path / "a.h5")


@pytest.mark.parametrize("kept", [8, 90, 2000])
def test_a_cut_file_is_damaged(kept: int, tmp_path: Path) -> None:
    _write(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:kept])
    with pytest.raises(UserError, match="damaged"):
        read_hdf5(tmp_path / "b.h5")
