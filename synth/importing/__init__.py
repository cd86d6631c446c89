"""Published generators, and images made elsewhere, as model folders. Nothing that a file brings along is run."""
