"""verl's workers against transformers and the accelerate engine, on a CPU (`make test-verl`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM

from ponder.engine.tokenizer import ModelFiles
from ponder.tasks.workers import VerifierPool
from ponder.training.engines.accelerate import AccelerateEngine
from ponder.training.engines.protocol import CheckpointError, Diverged, Learnt, TrainingEngine
from ponder.training.engines.verl import VerlEngine
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.kernel import ClippedObjective, Objective
from ponder.training.rollout.rows import Row
from ponder.training.run.run import Run
from training.policy import TINY, metrics, recipe, train

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.verl,
    pytest.mark.skipif(find_spec("verl") is None, reason="make setup-verl installs it"),
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # of Ray's and verl's own calls
]

SEQUENCES = [(5, 6, 7, 8, 9), (5, 6), tuple(range(20, 90)), (40, 3, 22)]
CLIPPED = ClippedObjective(GrpoConfig())


def verl(path: Path, workers: int) -> VerlEngine:
    own = recipe(path, "grpo", optimisation={"engine": "verl", "workers": workers})
    return VerlEngine(ModelFiles.find(str(TINY)), own, path / "out")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VerlEngine]:
    import ray

    # Of two engines at a time, whatever the machine has.
    ray.init(num_cpus=4, log_to_driver=False, include_dashboard=False)
    made = verl(tmp_path_factory.mktemp("one"), 1)
    yield made
    made.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def start(one: VerlEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's state before its first update."""
    kept = tmp_path_factory.mktemp("start")
    one.save(kept)
    return kept


def rollouts(method: str, path: Path) -> tuple[list[list[Row]], Objective]:
    """The updates of a step that the bundled checkpoint samples, and what the method maximises."""
    own = recipe(path, method)
    with VerifierPool(1) as pool:
        run = Run(own, path / "out", pool.judge, resume=False)
        with run.engine.sampler() as sample:
            experience = run._collector.collect(0, sample, run.engine.share)
    AcceleratorState._reset_state()
    return experience.updates, run._collector.method.objective


def learnt(
    engine: TrainingEngine, updates: Sequence[Sequence[Row]], aim: Objective
) -> list[Learnt]:
    packed = [engine.pack(rows, remember=i > 0) for i, rows in enumerate(updates)]
    return [
        engine.update(batches, aim, sum(row.learnt_tokens for row in rows))
        for batches, rows in zip(packed, updates, strict=True)
    ]


def accelerate(path: Path) -> AccelerateEngine:
    return AccelerateEngine(ModelFiles.find(str(TINY)), recipe(path, "grpo"), path / "out")


def test_log_probabilities_and_entropies_are_those_of_transformers(one: VerlEngine) -> None:
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    for ids, found in zip(SEQUENCES, one.share.score(SEQUENCES), strict=True):
        with torch.no_grad():
            log_probs_TV = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        of_next_T = log_probs_TV.gather(-1, torch.tensor(ids[1:])[:, None]).squeeze(-1)
        entropies_T = -(log_probs_TV.exp() * log_probs_TV).sum(-1)
        torch.testing.assert_close(found.log_probs, of_next_T, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(found.entropies, entropies_T, atol=1e-4, rtol=1e-5)


def test_its_weights_have_the_names_and_values_of_the_base(one: VerlEngine, start: Path) -> None:
    one.resume(start)
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    expected = {n: w for n, w in model.state_dict().items() if n not in model.all_tied_weights_keys}
    found = dict(one.weights())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("method", ["hbpo", "brpo", "htpo"])
def test_an_update_has_the_gradient_of_the_accelerate_engine(
    method: str, one: VerlEngine, start: Path, tmp_path: Path
) -> None:
    updates, objective = rollouts(method, tmp_path)
    (expected, later) = learnt(accelerate(tmp_path), updates, objective)
    one.resume(start)
    (found, after) = learnt(one, updates, objective)
    assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
    assert found.learning_rate == expected.learning_rate
    assert found.sums == pytest.approx(expected.sums, rel=1e-4, abs=1e-5)
    # The first step divides by gradients near 0: what is left of them decides.
    assert after.grad_norm == pytest.approx(later.grad_norm, rel=1e-2)


def test_two_workers_equal_one(one: VerlEngine, start: Path, tmp_path: Path) -> None:
    updates, objective = rollouts("hbpo", tmp_path)
    one.resume(start)
    alone = learnt(one, updates, objective)
    two = verl(tmp_path, 2)
    try:
        together = learnt(two, updates, objective)
        with pytest.raises(CheckpointError, match=r"set optimisation\.workers to 1"):
            two.resume(start)
    finally:
        two.close()
    for found, expected in zip(together, alone, strict=True):
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
        assert found.sums == pytest.approx(expected.sums, rel=1e-4, abs=1e-5)


def test_a_resumed_engine_goes_on_to_the_same_bits(
    one: VerlEngine, start: Path, tmp_path: Path
) -> None:
    updates, objective = rollouts("hbpo", tmp_path)
    one.resume(start)
    learnt(one, updates[:1], objective)
    one.save(tmp_path)
    learnt(one, updates[1:], objective)
    straight = {name: weight.clone() for name, weight in one.weights()}
    one.resume(tmp_path)
    assert one.updates == 1
    learnt(one, updates[1:], objective)
    assert all(torch.equal(weight, straight[name]) for name, weight in one.weights())


def test_what_is_not_finite_touches_no_weight(one: VerlEngine, start: Path) -> None:
    one.resume(start)
    row = Row((5, 6), (7, 8), (1.0, float("inf")), (True, True))
    with pytest.raises(Diverged):
        learnt(one, [[row, replace(row, advantages=(1.0, 1.0))]], CLIPPED)
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).state_dict()
    assert all(torch.equal(weight, model[name]) for name, weight in one.weights())


def test_a_run_measures_what_it_does_by_accelerate(tmp_path: Path) -> None:
    def run(engine: str) -> list[dict[str, Any]]:
        (tmp_path / engine).mkdir()
        own = recipe(tmp_path / engine, "hbpo", optimisation={"engine": engine, "steps": 1})
        train(own, tmp_path / engine / "out")
        AcceleratorState._reset_state()
        return metrics(tmp_path / engine / "out", "step")

    (expected,), (found,) = run("accelerate"), run("verl")
    measured = {name for name in expected if name != "kind" and not name.startswith("seconds")}
    assert found.keys() == expected.keys()
    assert {name: found[name] for name in measured} == pytest.approx(
        {name: expected[name] for name in measured}, rel=1e-2, abs=1e-4
    )
    assert (tmp_path / "verl" / "out" / "ponder.json").exists()
    told = "generation_config.json"
    assert (tmp_path / "verl" / "out" / told).read_bytes() == (TINY / told).read_bytes()
