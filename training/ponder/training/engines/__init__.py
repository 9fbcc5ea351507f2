"""What trains a model: the protocol, and accelerate behind it."""
