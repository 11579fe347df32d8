"""The loop and the worker, which know no task by name."""
