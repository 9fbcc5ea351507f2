"""How a fleet behaves that is larger than any machine here, by discrete-event simulation."""
