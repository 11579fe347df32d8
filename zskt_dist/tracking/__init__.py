"""Records the numbers of a run; nothing here can stop or slow training."""
