"""Several runs: one for each seed, a graph of experiments, the toy."""
