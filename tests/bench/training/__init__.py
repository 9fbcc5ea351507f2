"""The trainer against stock TRL, and against itself without its shortcuts."""
