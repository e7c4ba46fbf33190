"""Weights files: share files and checkpoints of this toolkit, and importers of other libraries."""
