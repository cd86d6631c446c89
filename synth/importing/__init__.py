"""Published generators, read without running anything that a file brings along."""
