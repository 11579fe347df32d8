"""Sweeps over configuration keys with Ray Tune: search spaces, the driver, selection without labels."""
