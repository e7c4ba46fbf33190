"""The Lightning side: module, optimiser, callbacks, run folders."""
