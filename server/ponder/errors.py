"""Every error that Ponder raises on purpose, in one tree.

The message is for whoever can mend it, and names the remedy. What is none of these is a bug, or
another library's.

PonderError
├── SetupError                  what a person mends before it runs: files, options, recipes
│   ├── ContractError           ponder.json cannot be read, or belongs to other files
│   ├── EngineSetupError        the engine cannot load as it is told to
│   │   ├── OptionsError        what follows `--` is not for vLLM
│   │   └── WeightsError        weights are missing or damaged
│   ├── ListenError             the port is taken, or the address is nobody's
│   ├── LoadError               the model does not load
│   ├── RecipeError             a recipe's field is wrong
│   ├── ResponderError          nobody can answer what is to be measured
│   ├── StateError              what servers keep or share cannot be used
│   ├── TokenizerError          tokens have no bytes, or the template does not render
│   ├── TracesError             spans cannot be sent
│   ├── UsageError              a command line is wrong
│   └── VerifierError           a verifier cannot be loaded, or cannot judge
├── ThoughtError                a request's plan, or a thought's end (ponder.thought.errors)
│   ├── BudgetLeavesNoAnswer    an explicit budget and an explicit reserve do not fit
│   ├── ContextLengthExceeded   the prompt leaves no room for an answer
│   ├── InvalidBudget           a number that is no budget, or contradicts another one
│   ├── InvalidCloseText        it does not hold the end marker exactly once
│   ├── NoAnswerProduced        the answer stayed empty after a retry
│   │   └── AnswerDidNotFit     it had next to no room, which is the request's doing
│   └── ReasoningUnsupported    a positive budget on a model that does not think
├── EngineError                 the engine failed on a request
│   ├── EngineDeadError         it is gone
│   ├── EngineOverloadedError   it takes no more requests at the moment
│   ├── Interrupted             a server did not bring it to its end; another one may
│   ├── Lacking                 a server does not do what it would be asked for
│   ├── RequestRefusedError     it does not take this request
│   └── WarmupError             it loaded, and gives no tokens
├── TrainingError               a run cannot go on
│   ├── CheckpointError         a checkpoint cannot be continued
│   ├── Diverged                the loss or its gradient is not finite
│   ├── NotFinite               the same in a cold start
│   └── WorkersLost             a process that trains failed or died
├── ApiError                    the answer to a request that is refused (ponder.protocol.errors)
├── PonderAPIError              a client's request that got no answer
└── VerifierFailure             one answer got no score

`ponder.protocol.errors` alone gives them an HTTP status.
"""

from __future__ import annotations


class PonderError(Exception):
    """The base of all."""


class SetupError(PonderError):
    """What a person mends before it runs."""


class VerifierError(SetupError):
    """A verifier cannot be loaded, or is wrong about answers that are known."""


class TrainingError(PonderError):
    """A run cannot go on; the message says how it can, or how to begin anew."""
