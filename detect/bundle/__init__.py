"""A trained detector on disk: its file, its calibration, what is new to it, and its export."""
