"""How good a detector is on data that it was not trained on."""
