"""The wire: every dialect reads its requests into one neutral request, and writes the replies."""
