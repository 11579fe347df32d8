"""One run: its directory, where that is stored, its checkpoints and its result."""
