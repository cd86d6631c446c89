"""Training of generators: what learns, what the loop of `core/fit` is given, and what is looked after meanwhile."""
