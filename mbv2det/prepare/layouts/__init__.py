"""How each format is found in a folder, one a file."""
