"""Training on a GPU: whether every method runs there, agrees with the CPU, and how fast it is."""
