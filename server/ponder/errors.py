"""Every error that Ponder raises on purpose, in one tree.

The message names the remedy, for the person who can apply it. Any other exception is a bug, or
comes from another library.

PonderError
├── SetupError                  a person mends it before the start: files, options, recipes
│   ├── ContractError           ponder.json cannot be read, or belongs to other files
│   ├── EngineSetupError        the engine cannot load with these settings
│   │   ├── OptionsError        an option after `--` is not for vLLM
│   │   └── WeightsError        weights are missing or damaged
│   ├── ListenError             the port is taken, or no interface has the address
│   ├── LoadError               the model does not load
│   ├── RecipeError             a recipe's field is wrong
│   ├── ResponderError          no model or server can answer the problems to measure
│   ├── StateError              the state that servers keep or share cannot be used
│   ├── TokenizerError          tokens have no bytes, or the template does not render
│   ├── TracesError             spans cannot be sent
│   ├── UsageError              a command line is wrong
│   └── VerifierError           a verifier cannot be loaded, or cannot judge
├── ThoughtError                a request's plan, or a thought's end (ponder.thought.errors)
│   ├── BudgetLeavesNoAnswer    an explicit budget and an explicit reserve do not fit
│   ├── ContextLengthExceeded   the prompt leaves no room for an answer
│   ├── InvalidBudget           a number that is no budget, or contradicts another one
│   ├── InvalidCloseText        a close text without exactly one end marker
│   ├── NoAnswerProduced        the answer stayed empty after a retry
│   │   └── AnswerDidNotFit     the request left next to no room for an answer
│   └── ReasoningUnsupported    a positive budget on a model that does not think
├── EngineError                 the engine failed on a request
│   ├── EngineDeadError         the engine is gone
│   ├── EngineOverloadedError   the engine takes no more requests at the moment
│   ├── Interrupted             a server did not finish a request; another one may
│   ├── Lacking                 a server lacks something that the engine needs
│   ├── RequestRefusedError     the engine does not take this request
│   └── WarmupError             the engine loaded, but gives no tokens
├── TrainingError               a run cannot go on
│   ├── CheckpointError         a checkpoint cannot be continued
│   ├── Diverged                the loss or its gradient is not finite
│   ├── NotFinite               a loss or gradient of a cold start is not finite
│   └── WorkersLost             a process that trains failed or died
├── ApiError                    the answer to a refused request (ponder.protocol.errors)
├── PonderAPIError              a client's request that got no answer
└── VerifierFailure             one answer got no score

Only `ponder.protocol.errors` gives them an HTTP status.
"""

from __future__ import annotations


class PonderError(Exception):
    """The base class of all errors that Ponder raises on purpose."""


class SetupError(PonderError):
    """A fault that a person mends before the start."""


class VerifierError(SetupError):
    """A verifier cannot be loaded, or misjudges known answers."""


class TrainingError(PonderError):
    """A training run cannot go on; the message says how to continue or to start again."""
