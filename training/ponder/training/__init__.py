"""Training: from verifiable problems to checkpoints that know what a thinking budget is."""
