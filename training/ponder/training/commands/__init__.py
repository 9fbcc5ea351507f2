"""What `ponder train` and `ponder eval` do; the command line parses, these run."""
