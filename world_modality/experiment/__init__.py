"""The experiment: its config, the spec of each stage, where artifacts lie, and which options fit the budget."""
