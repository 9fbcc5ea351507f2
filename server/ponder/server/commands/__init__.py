"""Commands about models that serve nobody: what Ponder knows of families, and of one model."""
