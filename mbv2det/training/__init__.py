"""Training with Lightning: module, optimiser, callbacks, run folders."""
