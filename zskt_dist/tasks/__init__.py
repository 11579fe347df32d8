"""One file for each thing that trains: what it reads, what it needs, and what one iteration is."""
