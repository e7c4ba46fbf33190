"""Using trained weights: prediction and pictures of it."""
