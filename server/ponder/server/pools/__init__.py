"""Pools of thinking tokens that many requests share: the protocol, and where levels are kept."""
