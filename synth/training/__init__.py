"""Training of generators: the loop, what learns, and what is looked after meanwhile."""
