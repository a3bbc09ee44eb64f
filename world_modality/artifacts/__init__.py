"""Files that come into being whole or not at all, and that say what they were made from."""
