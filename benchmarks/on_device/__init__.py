"""What `benchmarks.accelerator` runs: one module for each kind of stage, and what they share."""
