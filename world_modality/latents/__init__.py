"""V-JEPA 2 and the tables of its latents."""
