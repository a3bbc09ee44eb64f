"""Closed-loop rollouts of a policy."""
