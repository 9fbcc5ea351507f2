"""What can be wrong with a thought's plan or its end. Messages name the remedy.

A field of the request stands in backticks where dialects spell it differently.
"""

from __future__ import annotations

from ponder.errors import PonderError


class ThoughtError(PonderError):
    """Base class. `field` is the neutral name of the field at fault, where there is one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidBudget(ThoughtError):
    pass


class BudgetLeavesNoAnswer(ThoughtError):
    pass


class ReasoningUnsupported(ThoughtError):
    pass


class ContextLengthExceeded(ThoughtError):
    pass


class InvalidCloseText(ThoughtError):
    pass


class NoAnswerProduced(ThoughtError):
    pass


class AnswerDidNotFit(NoAnswerProduced):
    pass
