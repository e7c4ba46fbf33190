"""The commands; `tools/` and the console script call them."""
