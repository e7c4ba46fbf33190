"""SSD's anchors, box coder, matcher, loss and postprocess: everything about boxes but the net."""
