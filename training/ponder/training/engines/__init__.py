"""Engines of training: who runs the optimizer."""
