"""How good fakes are: pure functions over batches of images and small mergeable accumulators."""
