"""Ponder against vLLM's own OpenAI server, on the same model, in turn: `python -m tests.bench`."""
