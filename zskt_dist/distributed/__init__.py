"""The group of workers, and what they agree on."""
