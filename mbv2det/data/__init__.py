"""Data sets, from files to batches."""

import os

# albumentations reads it at its first import, and would look for newer versions on the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
