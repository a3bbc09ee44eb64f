"""LIBERO in MuJoCo, the stages of a pickup in it, and the scripted expert."""
