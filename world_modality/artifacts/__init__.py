"""Artifacts: files that are written completely or not at all, and that record what they were made from."""
