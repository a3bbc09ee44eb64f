"""The experiment: its config, what each stage is handed, where artifacts lie, and what fits the budget."""
