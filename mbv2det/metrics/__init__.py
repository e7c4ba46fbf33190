"""Metrics of detection and segmentation, measured in the frame of the original images."""
