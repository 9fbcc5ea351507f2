"""Engines: token ids in, token chunks out, closing the stream aborts the request."""
