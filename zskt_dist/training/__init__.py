"""The training loop and the worker; neither depends on a particular task."""
