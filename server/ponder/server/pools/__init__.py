"""Pools of thinking tokens that many requests share: the protocol, and its two stores."""
