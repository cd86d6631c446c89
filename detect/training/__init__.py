"""Training of a detector: data, recipes, batches, the loop."""
