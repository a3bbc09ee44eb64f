"""The demonstrations: recording, replaying and loading them, and what an experiment takes from a hub."""
