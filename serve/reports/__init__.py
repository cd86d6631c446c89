"""Reports on an analysis: written, signed, checked."""
