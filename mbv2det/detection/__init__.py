"""Detection around the network: anchors and points, their training targets, loss, postprocess."""
