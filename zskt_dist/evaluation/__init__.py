"""Measures a student: with labels, without labels, and by transition curves."""
