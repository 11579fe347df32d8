"""Pictures, drawn after training."""
