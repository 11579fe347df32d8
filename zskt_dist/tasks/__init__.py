"""The tasks that a stage can do: what each reads, what it needs, and what one iteration is."""
