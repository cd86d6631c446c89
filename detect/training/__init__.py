"""Training of a detector: data, recipes, batches, and what the loop of `core/fit` is given."""
