"""Pictures out of trained generators: in bulk, by seed, along walks, and closest to a photo."""
