"""Generators: training, bulk generation, quality."""
