"""What one step learns from: problems, rollouts, their rewards, and rows with advantages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from ponder.tasks.draws import Source
from ponder.tasks.problems import Problem, Task
from ponder.tasks.workers import Verdict

from ..algorithms.outcomes import Advantages, AnytimeOutcomes, Outcomes
from ..methods import METHODS, BrpoConfig, HbpoConfig, MethodConfig
from .drive import Sampler
from .plans import Prompt, Reader, Response, Truncated, hinted, plain, truncated
from .rows import Chunk, Row

Judge = Callable[[Sequence[tuple[Problem, str]]], list[Verdict]]


# Metrics that add up over processes; the others are means.
COUNTS = ("sampled_tokens", "unjudged_answers")


@dataclass(frozen=True, slots=True)
class Share:
    """This process's part of a step: number `rank` of `world`."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class Experience:
    """Rows per update, what the step measured, and some responses to look at."""

    updates: list[list[Row]]
    metrics: Mapping[str, float]
    shown: Sequence[Mapping[str, object]]


class Collector:
    """Collects the experience of a step: a function of the weights, the seed and the step alone.

    `prompts` problems are drawn per step, `updates` optimizer updates share them.
    """

    def __init__(
        self,
        config: MethodConfig,
        tasks: Sequence[Task],
        reader: Reader,
        judge: Judge,
        *,
        prompts: int,
        updates: int,
        seed: int,
        longest_prompt: int | None = None,
    ) -> None:
        if METHODS[config.method].rollout != "plain" and reader.form.opened_by != "template":
            raise ValueError(
                f"base: {config.method} hints or cuts open thoughts, and this chat template leaves "
                "the opening to the model: use one that ends with the start marker"
            )
        if isinstance(config, BrpoConfig) and config.summary_tokens <= len(reader.form.close.ids):
            raise ValueError(
                f"method.summary_tokens: closing a thought alone takes {len(reader.form.close.ids)}"
            )
        self._config = config
        self._method = METHODS[config.method]
        self._reader = reader
        self._judge = judge
        self._prompts = prompts
        self._updates = updates
        self._seed = seed
        self._attempts = config.generation_batches if config.dynamic_sampling else 1
        self._source = Source(tasks, seed, prompts, self._attempts - 1, self._fits(longest_prompt))
        self._hints: list[tuple[int, tuple[int, ...]]] = []
        if isinstance(config, HbpoConfig):
            encode = reader.tokenizer.encode
            texts = {b: config.hint.format(budget=b) for b in config.budgets}
            self._hints = [(b, tuple(encode(texts[b]))) for b in config.row_budgets]

    # -- prompts ---------------------------------------------------------------------------

    def _fits(self, longest: int | None) -> Callable[[Problem], bool]:
        """Whether a problem's prompt has at most `longest` tokens."""
        return lambda problem: (
            longest is None or len(self._reader.prompt(problem, "").ids) <= longest
        )

    def _drawn(self, step: int, attempt: int, number: int) -> Prompt:
        """Training problem `number` of a step; the same in whichever process asks."""
        key = f"{self._seed}/{step}/{attempt}/{number}"
        return self._reader.prompt(self._source.problem(step, attempt, number, key), key)

    # -- a step ----------------------------------------------------------------------------

    def collect(self, step: int, sampler: Sampler, share: Share) -> Experience:
        """Sample, judge and weigh the rollouts of `step`; `prompts / world` groups of rows."""
        per_update = self._prompts // self._updates
        mine = per_update // share.world
        numbers = [
            update * per_update + share.rank * mine + i
            for update in range(self._updates)
            for i in range(mine)
        ]
        kept: list[Group] = []
        spare: list[Group] = []
        everything: list[Group] = []
        attempts = 0
        while len(kept) < len(numbers) and attempts < self._attempts:
            prompts = [self._drawn(step, attempts, number) for number in numbers]
            groups = self._groups(prompts, sampler)
            everything += groups
            for group in groups:
                (kept if group.telling else spare).append(group)
            attempts += 1
        # Too few groups with a signal: the rest of the batch is there, and teaches nothing.
        kept = kept[: len(numbers)]
        kept += [group.muted() for group in spare[: len(numbers) - len(kept)]]
        updates = [
            [row for group in kept[i * mine : (i + 1) * mine] for row in group.rows]
            for i in range(self._updates)
        ]
        metrics = {**_measure(everything), "generation_batches": float(attempts)}
        return Experience(updates, metrics, [it for group in everything[:3] for it in group.shown])

    def _groups(self, prompts: Sequence[Prompt], sampler: Sampler) -> list[Group]:
        config = self._config
        if isinstance(config, BrpoConfig):
            thoughts = truncated(
                prompts,
                config.group_size,
                sampler,
                self._reader,
                budgets=config.budgets,
                summaries=config.summaries,
                summary_tokens=config.summary_tokens,
                grace=config.grace,
            )
            return self._truncated_groups(thoughts, config)
        if isinstance(config, HbpoConfig):
            responses = hinted(prompts, self._hints, config.longest, sampler, self._reader)
        else:
            responses = plain(prompts, config.group_size, config.longest, sampler, self._reader)
        return self._response_groups(responses)

    # -- plain and hinted ------------------------------------------------------------------

    def _response_groups(self, responses: Sequence[Response]) -> list[Group]:
        config, size = self._config, self._config.group_size
        verdicts = self._judge([(r.prompt.problem, r.answer) for r in responses])
        correct = [v.correct and r.formatted for v, r in zip(verdicts, responses, strict=True)]
        lengths = [len(r.sampled) + len(r.hint) * config.count_hint for r in responses]
        outcomes = Outcomes(
            correct_B=torch.tensor(correct),
            formatted_B=torch.tensor([r.formatted for r in responses]),
            length_B=torch.tensor(lengths, dtype=torch.float),
            budget_B=torch.tensor([float(r.budget or 0) for r in responses]),
        )
        rewards_B = self._method.reward(outcomes, config)
        advantages = self._method.advantage(rewards_B, outcomes, config)
        value_B = advantages.segments_BS[:, 0].tolist()
        keep = self._method.keep
        kept_Q = keep(outcomes, config).tolist() if keep else [True] * (len(responses) // size)
        groups = []
        for start in range(0, len(responses), size):
            members = range(start, start + size)
            accuracy = fmean(correct[i] for i in members)
            rows = [
                _response_row(responses[i], value_B[i], config.loss_on_hint, correct[i], accuracy)
                for i in members
            ]
            groups.append(
                Group(
                    rows,
                    rewards=rewards_B[start : start + size].tolist(),
                    correct=[correct[i] for i in members],
                    thinking=[responses[i].thinking_tokens for i in members],
                    sampled=[len(responses[i].sampled) for i in members],
                    truncated=[not responses[i].formatted for i in members],
                    parts=_parts(advantages, start, start + size),
                    unjudged=sum(verdicts[i].failure is not None for i in members),
                    shown=[
                        _show(responses[i], self._reader, rewards_B[i].item())
                        for i in _first_of_each([responses[i].budget for i in members], start)
                    ],
                    telling=kept_Q[start // size],
                )
            )
        return groups

    # -- truncated -------------------------------------------------------------------------

    def _truncated_groups(self, thoughts: Sequence[Truncated], config: BrpoConfig) -> list[Group]:
        size, asked = config.group_size, (len(thoughts), len(config.budgets), config.summaries)
        correct_BmA = torch.zeros(asked, dtype=torch.bool)
        formatted_BmA = torch.zeros(asked, dtype=torch.bool)
        places = [
            (i, j, a)
            for i, thought in enumerate(thoughts)
            for j, answers in enumerate(thought.summaries)
            for a in range(len(answers))
        ]
        verdicts = self._judge(
            [(thoughts[i].prompt.problem, thoughts[i].summaries[j][a].answer) for i, j, a in places]
        )
        unjudged = [0] * len(thoughts)
        for (i, j, a), verdict in zip(places, verdicts, strict=True):
            formatted = thoughts[i].summaries[j][a].formatted
            formatted_BmA[i, j, a] = formatted
            correct_BmA[i, j, a] = verdict.correct and formatted
            unjudged[i] += verdict.failure is not None
        written = [min(len(thought.sampled), config.budgets[-1]) for thought in thoughts]
        outcomes = AnytimeOutcomes(correct_BmA, formatted_BmA, torch.tensor(written))
        rewards = self._method.reward(outcomes, config)
        advantages = self._method.advantage(rewards, outcomes, config)
        tokens_BT = advantages.tokens(torch.tensor(written), max(written))
        summaries_BmA = advantages.summaries_BmA
        assert summaries_BmA is not None
        rows = [
            _truncated_row(thought, tokens_BT[i, : written[i]].tolist(), summaries_BmA[i].tolist())
            for i, thought in enumerate(thoughts)
        ]
        groups = []
        for start in range(0, len(thoughts), size):
            members = range(start, start + size)
            final = correct_BmA[start : start + size, -1].float().mean(-1)
            groups.append(
                Group(
                    [rows[i] for i in members],
                    rewards=correct_BmA[start : start + size].float().mean((1, 2)).tolist(),
                    correct=final.tolist(),
                    thinking=[min(thoughts[i].thinking_tokens, config.longest) for i in members],
                    sampled=[_sampled(thoughts[i]) for i in members],
                    truncated=[_closed_by_us(thoughts[i]) for i in members],
                    parts=_parts(advantages, start, start + size),
                    unjudged=sum(unjudged[i] for i in members),
                    shown=[_show_truncated(thoughts[start], self._reader, config.budgets)],
                )
            )
        return groups


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one prompt, row by row."""

    rows: list[Row]
    rewards: list[float]
    correct: Sequence[float]
    thinking: list[int]
    sampled: list[int]
    truncated: list[bool]
    parts: Mapping[str, float]
    unjudged: int  # answers whose verifier failed
    shown: Sequence[Mapping[str, object]]
    telling: bool = True  # whether its rewards differ, where the method asks for that

    def muted(self) -> Group:
        """The same rows with nothing to learn in them."""
        return replace(
            self, rows=[replace(row, learnt=(False,) * len(row.learnt)) for row in self.rows]
        )


def _response_row(
    response: Response, value: float, loss_on_hint: bool, correct: bool, accuracy: float
) -> Row:
    completion = (*response.hint, *response.sampled)
    hinted_part = (loss_on_hint,) * len(response.hint)
    return Row(
        response.prompt.ids,
        completion,
        (value,) * len(completion),
        (*hinted_part, *((True,) * len(response.sampled))),
        correct=correct,
        group_accuracy=accuracy,
    )


def _truncated_row(
    thought: Truncated, values: Sequence[float], summaries: Sequence[Sequence[float]]
) -> Row:
    """The thought with its summaries as chunks; a natural end is copied into each chunk."""
    prompt, kept = thought.prompt.ids, thought.sampled[: len(values)]
    chunks = []
    for j, cut in enumerate(thought.cuts):
        if cut is None:
            continue
        start, inserted = len(prompt) + cut.kept, cut.close
        if not inserted:
            start, inserted = start - 1, (thought.sampled[cut.kept - 1],)
        for a, summary in enumerate(thought.summaries[j]):
            ids = (*inserted, *summary.sampled)
            chunks.append(Chunk(start, ids, len(inserted), summaries[j][a]))
    return Row(prompt, kept, tuple(values), (True,) * len(kept), tuple(chunks))


def _parts(advantages: Advantages, start: int, end: int) -> dict[str, float]:
    return {name: part[start:end].mean().item() for name, part in advantages.parts.items()}


def _closed_by_us(thought: Truncated) -> bool:
    """The thought did not end by itself within the largest budget."""
    last = thought.cuts[-1]
    return last is None or bool(last.close)


def _sampled(thought: Truncated) -> int:
    answers = sum(len(s.sampled) for place in thought.summaries for s in place)
    return len(thought.sampled) + answers


def _measure(groups: Sequence[Group]) -> dict[str, float]:
    """What the logs show of a step, over everything that was sampled, kept or not."""

    def over_rows(name: str) -> float:
        return fmean(value for group in groups for value in getattr(group, name))

    names = sorted({name for group in groups for name in group.parts})
    return {
        "reward": over_rows("rewards"),
        "accuracy": over_rows("correct"),
        "thinking_tokens": over_rows("thinking"),
        "truncation_rate": over_rows("truncated"),
        # A length penalty may tell apart what dynamic sampling drops.
        "zero_variance_share": fmean(
            not group.telling or len(set(group.rewards)) == 1 for group in groups
        ),
        "sampled_tokens": float(sum(sum(group.sampled) for group in groups)),
        "unjudged_answers": float(sum(group.unjudged for group in groups)),
        **{f"advantage_{n}": fmean(group.parts[n] for group in groups) for n in names},
    }


def _first_of_each(budgets: Sequence[int | None], start: int) -> list[int]:
    """The place of the first response told each budget; `start` is the place of the first."""
    return [start + budgets.index(budget) for budget in dict.fromkeys(budgets)]


def _show(response: Response, reader: Reader, reward: float) -> dict[str, object]:
    return {
        "problem": response.prompt.problem.question,
        "answer": response.prompt.problem.answer,
        "hint": reader.text(response.hint),
        "thought": reader.text(response.sampled[: response.thinking_tokens]),
        "answered": response.answer,
        "reward": reward,
    }


def _show_truncated(
    thought: Truncated, reader: Reader, budgets: Sequence[int]
) -> dict[str, object]:
    return {
        "problem": thought.prompt.problem.question,
        "answer": thought.prompt.problem.answer,
        "thought": reader.text(thought.sampled[: thought.thinking_tokens]),
        "answered": {
            str(budget): [summary.answer for summary in thought.summaries[j]]
            for j, budget in enumerate(budgets)
        },
    }
