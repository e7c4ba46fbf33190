"""SSD around the network: anchors, box coder, matcher, loss and postprocess."""
