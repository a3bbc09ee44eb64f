"""What the episodes are worth, and the decision tree."""
