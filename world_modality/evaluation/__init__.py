"""Rolling a policy out in closed loop."""
