"""The algorithms of the paper; they know nothing of distribution, tracking or storage."""
