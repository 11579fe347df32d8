"""`index.html` of a run: one page that needs no other file, written after training from what the run directory has."""
