"""Weights in files: the toolkit's own, and those of others."""
