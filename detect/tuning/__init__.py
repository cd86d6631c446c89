"""Search for better training settings, by validation alone."""
