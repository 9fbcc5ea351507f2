"""The experiment behind the savings: who is held out, what is kept, what it shows."""
