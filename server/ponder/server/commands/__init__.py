"""Commands that describe and check models without serving them."""
