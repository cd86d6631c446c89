"""Detector networks: images in [0, 1], float ``[B, 3, H, W]``, to one logit each ``[B]``; positive means fake.

One of your own is a :class:`DetectorNetwork` in a module here, registered in ``MODELS`` and named in its table.
"""

from crossfake.detect.models.base import MODELS, DetectorNetwork
from crossfake.detect.models.factory import create_model

__all__ = ["MODELS", "DetectorNetwork", "create_model"]
