"""LIBERO in MuJoCo, how far a pickup has come in it, and the scripted expert."""
