"""Sweeps over configuration keys with Ray Tune will live here; so far there are none."""
