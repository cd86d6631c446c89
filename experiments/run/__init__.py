"""An experiment carried out: stages, cells, and where they run."""
