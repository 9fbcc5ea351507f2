"""Measuring: who answers, under which budgets, and what follows from the answers."""
