"""Segmentation around the network: raw outputs, resampling, loss, postprocess, test-time views."""
