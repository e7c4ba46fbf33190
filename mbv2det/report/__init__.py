"""Pages that show how good a model is, where it fails and why."""
