"""Methods: what a step learns from its rollouts, as stages that compose.

One paper, one file: its formula and its settings. `presets` lists the methods, `components` what
can be added to any of them. Suffixes name shapes: B rollouts, a prompt's next to each other in Q
groups of any size; T tokens of a completion; m thinking budgets; A summaries of a cut thought.
"""
