"""Verifiable problems: what they are, where they come from, how an answer is judged."""
