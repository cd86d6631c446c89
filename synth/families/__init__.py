"""Generator families: one module each, found by name in ``FAMILIES``."""

from crossfake.synth.families.base import FAMILIES, Family, Recipe

__all__ = ["FAMILIES", "Family", "Recipe"]
