"""How good the results are, measured in the frame of the original images."""
