"""Benchmarks: how fast networks are, from image to prediction, and what else they cost."""
