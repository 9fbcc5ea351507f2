"""The HTTP server: the only room that knows FastAPI."""
