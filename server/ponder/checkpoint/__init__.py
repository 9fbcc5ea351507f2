"""Reads a model directory, and makes prompts and plans for all callers that ask the model."""
