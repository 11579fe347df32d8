"""Networks with their weights, the images and classes they are made for, and their pairs of attention maps."""
