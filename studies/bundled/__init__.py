"""Makes the bundled checkpoint: candidates by HBPO, chosen on validation problems."""
