"""The algorithms of the paper; they depend on no distribution, tracking or storage."""
