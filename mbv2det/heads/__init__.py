"""Heads: from backbone features to raw outputs, one file each.

Every head is called with (features, image size). The classification head is
`mbv2det.backbones.classifier.Classifier`, since a backbone may also have one.
"""
