"""Training: how a checkpoint is made."""
