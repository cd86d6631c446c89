"""From scores to probabilities, and when to abstain."""
