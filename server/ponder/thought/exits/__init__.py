"""Why thoughts end: one table of causes, and one file for each rule that closes a thought."""
