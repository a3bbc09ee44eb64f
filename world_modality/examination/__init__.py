"""What is measured of a checkpoint in addition to its success rate."""
