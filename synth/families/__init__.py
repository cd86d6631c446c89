"""Generator families: one module each, found by name in ``FAMILIES``."""

from crossfake.synth.families.base import FAMILIES, Family, Hyperparameters

__all__ = ["FAMILIES", "Family", "Hyperparameters"]
