"""Rollouts of a real vLLM server, whose weights are the trainer's from one `load` to the next."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import demo
import fleet
import pytest
import torch
from transformers import AutoModelForCausalLM

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.training.engines import publishing
from ponder.training.engines.protocol import WorkersLost
from ponder.training.engines.served import PUBLISHED, ServedSampler
from ponder.training.rollout.drive import uniforms
from ponder.training.rollout.rows import row_of
from ponder.training.rollout.sampler import sample
from ponder.training.run.recipe import RecipeError
from training.policy import TINY, metrics, recipe, train

pytestmark = pytest.mark.engine

QUESTIONS = ["What is 17 + 25 - 9?", "hello", "What is 17 + 25 - 9?"]
STOPS = frozenset({18})
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log, port = tmp_path_factory.mktemp("vllm") / "vllm.log", demo.free_port()
    options = ["--worker-cls", "training.engines.store_transfer.Worker"]
    options += ["--logprobs-mode", "processed_logprobs"]
    options += ["--weight-transfer-config", '{"backend": "nccl"}']
    environ = fleet.environment(TINY) | {"VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": str(TESTS)}
    url = f"http://127.0.0.1:{port}"
    with demo.process(fleet.worker(TINY, port, *options), log, environ) as child:
        demo.wait_ready("vLLM", f"{url}/health", child, log)
        yield url


def served(url: str, path: Path, transfer: str = "checkpoint") -> ServedSampler:
    asked = {"engine": "http", "servers": [url], "transfer": transfer}
    return ServedSampler(ModelFiles.find(str(TINY)), recipe(path, "grpo", rollouts=asked), path)


def score(model: Any, prompt: list[int], ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits_TV = model(torch.tensor([[*prompt, *ids]])).logits[0].float()
    log_probs_TV = logits_TV[len(prompt) - 1 : -1].log_softmax(-1)
    return log_probs_TV.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1)


@pytest.mark.parametrize("transfer", ["checkpoint", "nccl"])
def test_it_samples_from_the_weights_that_it_was_given(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: str
) -> None:
    """NCCL's place has a TCP store: it needs GPUs."""
    importlib.import_module("training.engines.store_transfer")
    monkeypatch.setattr(publishing, "on_gpu", lambda: True)
    checkpoint = Checkpoint.load(ModelFiles.find(str(TINY)))
    asked = [checkpoint.opened([{"role": "user", "content": said}], {}) for said in QUESTIONS]
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.bfloat16).eval()
    noise = uniforms("key", 3, 12)
    there = served(server, tmp_path, transfer)
    one, two = checkpoint.tokenizer.encode("12")
    said = []
    for swapped in (False, True):
        if swapped:  # it reads one digit as the other, and is as sure as before
            weight = model.get_input_embeddings().weight.data
            weight[[one, two]] = weight[[two, one]]
        tied = model.all_tied_weights_keys
        state = {n: w.detach().float() for n, w in model.state_dict().items() if n not in tied}
        there.load(lambda state=state: iter(state.items()), int(swapped))
        here = sample(model, asked, noise, stop_ids=STOPS, temperature=1e-6)
        said.append(there.sample(0.0, asked, noise, STOPS))
        assert said[-1] == here
        drawn = there.sample(1.0, asked, noise, STOPS)
        for prompt, ids in zip(asked, drawn, strict=True):
            row = row_of([*prompt, *ids])
            known = torch.tensor(there.drawn[int(swapped)].row(row)[len(prompt) :])
            torch.testing.assert_close(known, score(model, prompt, ids), atol=0.25, rtol=0.05)
    assert said[0] != said[1]
    there.close()
    assert not (tmp_path / PUBLISHED).exists()


def test_a_step_ahead_counts_by_the_weights_that_drew_it(server: str, tmp_path: Path) -> None:
    """The last steps learn from what weights drew that are two updates older."""
    ahead = {"engine": "http", "servers": [server], "steps_ahead": 1}
    plan = {"steps": 3, "learning_rate": 3e-3}
    own = recipe(tmp_path, "hbpo", rollouts=ahead, optimisation=plan)
    train(own, tmp_path / "out")
    steps = metrics(tmp_path / "out", "step")
    assert [line["staleness"] for line in steps] == [0, 2, 2]
    assert steps[0]["sampler_ratio"] == pytest.approx(1, abs=0.02)
    first, *older = (line["sampler_kl"] for line in steps)
    assert max(older) > 3 * first, "older weights differ by more than kernels do"


def test_a_server_that_cannot_reload_is_named(server: str, tmp_path: Path) -> None:
    there = served(server, tmp_path)
    with pytest.raises(WorkersLost, match=f"{server} took no new weights: /collective_rpc"):
        there.load(
            lambda: iter([("lost", torch.zeros(1))]), 0
        )  # a weight that the model does not have
    there.close()


def test_no_server_is_said_before_anything_is_sampled(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rollouts\.servers: no inference server answers"):
        served(f"http://127.0.0.1:{demo.free_port()}", tmp_path)
