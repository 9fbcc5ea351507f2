"""What servers behind one address share while they run, in Redis."""
