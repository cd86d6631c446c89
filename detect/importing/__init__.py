"""Detectors that others published, as bundles."""
