"""The page on Ray, word for word."""

from pathlib import Path

import pytest

from crossfake.executor import ExecutorSettings

from ..docs.test_docs import draw_home, run_blocks

_GAN = (
    "crossfake data prepare ~/photos --label real --size 16 --crop center --out data/before\n"
    "synth train --data data/before --family stylegan2 --kimg 0.1 --batch 8 --channels 16 --out runs/gan\n"
)


@pytest.mark.slow
def test_the_page_on_ray(stored: ExecutorSettings, tmp_path: Path) -> None:
    import s3fs

    draw_home(tmp_path)
    for name, there in (("photos", "photos"), ("known-fakes", "known")):
        s3fs.S3FileSystem().put(str(tmp_path / name), f"faces/{there}", recursive=True)
    (tmp_path / "here").mkdir()
    page, home = "docs/howto/cluster.md", {"HOME": str(tmp_path), "TEST_ADDRESS": str(stored.address)}
    run_blocks(page, tmp_path / "here", _GAN, **home)
    assert (tmp_path / "here" / "verdicts.json").exists()
