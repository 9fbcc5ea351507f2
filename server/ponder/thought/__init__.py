"""The domain: what a thought is, how long it may be and how it ends. Standard library only."""
