"""A named network with its weights and the shape of its images."""
