"""What can be wrong with a thought's plan or its end. Messages name the remedy.

A field of the request stands in backticks where dialects spell it differently.

ThoughtError
├── InvalidBudget           a number that is no budget, or contradicts another one
├── BudgetLeavesNoAnswer    explicit budget + explicit reserve do not fit
├── ReasoningUnsupported    a positive budget on a model that does not think
├── ContextLengthExceeded   the prompt leaves no room for an answer
├── InvalidCloseText        it does not hold the end marker exactly once
└── NoAnswerProduced        the invariant's alarm: the answer stayed empty after a retry
    └── AnswerDidNotFit     it had next to no room, which is the request's doing
"""

from __future__ import annotations


class ThoughtError(Exception):
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
