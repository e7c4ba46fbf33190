"""What surrounds the segmentation head: its outputs, loss and postprocess."""
