"""Where the numbers of a run go; nothing here can stop or slow training."""
