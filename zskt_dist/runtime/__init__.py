"""One rank's run: the training loop with evaluation, checkpoints, resume and results."""
