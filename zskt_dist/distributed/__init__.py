"""Who the workers are, and what they agree on."""
