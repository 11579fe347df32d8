"""How good a student is: with labels, without them, and along the way from one class to another."""
