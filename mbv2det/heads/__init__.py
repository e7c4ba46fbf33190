"""Heads turn backbone features into raw outputs; one file each."""
