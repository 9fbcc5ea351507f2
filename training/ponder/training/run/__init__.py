"""One run: its recipe, what it has to fit, how long it will take, its directory, its export."""
