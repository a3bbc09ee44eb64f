"""Making a checkpoint."""
