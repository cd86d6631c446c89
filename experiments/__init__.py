"""Protocols over generators and detectors, the statistics behind their verdicts, and their reports."""
