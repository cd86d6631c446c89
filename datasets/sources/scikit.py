"""Face sets that scikit-learn fetches; the person is the group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crossfake.datasets.sources.base import SOURCES, Record, Source, SourceSpec
from crossfake.datasets.sources.folder import walk
from crossfake.errors import UserError


@SOURCES.register("lfw")
class LFW(Source):
    """Labeled Faces in the Wild (Huang et al. 2007), funneled: 13,233 photos of 5,749 people, 250×250."""

    about = "13,233 photos of 5,749 people, fetched by scikit-learn, real"
    needs_path = False

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        from sklearn.datasets import fetch_lfw_people, get_data_home

        try:  # loads the few people with 500 photos; what matters is that it unpacks the rest
            fetch_lfw_people(min_faces_per_person=500, resize=0.1)
        except OSError as error:
            raise _not_fetched("LFW", error) from error
        root = Path(get_data_home()) / "lfw_home" / "lfw_funneled"
        for path in walk(root):
            origin = path.relative_to(root).as_posix()
            yield Record(path, origin=origin, source="lfw", group=f"lfw:{path.parent.name}", label=0)


@SOURCES.register("olivetti")
class Olivetti(Source):
    """Olivetti faces (AT&T, 1992–94): 400 grey photos of 40 people, 64×64."""

    about = "400 grey photos of 40 people, fetched by scikit-learn, real"
    needs_path = False

    def records(self, spec: SourceSpec) -> Iterator[Record]:
        from sklearn.datasets import fetch_olivetti_faces

        try:
            bunch = fetch_olivetti_faces()
        except OSError as error:
            raise _not_fetched("Olivetti faces", error) from error
        for number, (image, person) in enumerate(zip(bunch.images, bunch.target, strict=True)):
            grey = np.rint(np.asarray(image) * 255).astype(np.uint8)
            rgb = np.repeat(grey[:, :, None], 3, axis=2)
            yield Record(rgb, origin=f"{number:03d}", source="olivetti", group=f"olivetti:{person}", label=0)


def _not_fetched(name: str, error: OSError) -> UserError:
    reason = str(error).partition("\n")[0]
    return UserError(
        f"{name} could not be fetched ({reason})", hint="check the network, or name a folder of images"
    )
