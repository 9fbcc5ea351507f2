"""The wire: every dialect is read into one neutral request, and its reply is written in it."""
