"""What is measured on a checkpoint in addition to its success rate."""
