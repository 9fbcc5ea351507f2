"""The papers' mathematics: one paper, one file, pure functions on tensors.

Nothing here but torch and the standard library, so that every trainer can use it. Suffixes name
shapes: B rollouts, a prompt's G of them next to each other; Q = B/G prompts; T tokens of a
completion; m thinking budgets; A summaries of a thought cut at one budget.
"""
