"""Where images come from: one file for each layout, found by name in the table of ``base.py``."""
