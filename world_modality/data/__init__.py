"""The demonstrations: recording, replaying and loading them, and what is taken from a hub."""
