"""Rollouts of a real vLLM in the trainer's process: its weights are the trainer's, step by step.

On vLLM's CPU build. vLLM keeps its threads, its process group and its environment in the process
that loads it, so each of these has a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.policy import TINY, metrics, raw_recipe, write_recipe

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[3]
SAMPLED = """
import json, math, sys
import torch
from transformers import AutoModelForCausalLM
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.training.engines.vllm import VLLMSampler
from ponder.training.rollout.experience import Share
from ponder.training.rollout.drive import uniforms
from ponder.training.rollout.rows import row_of
from ponder.training.rollout.sampler import sample

base, files = sys.argv[1], ModelFiles.find(sys.argv[1])
# What the model is sure of: where two tokens are as likely, rounding decides between them.
questions = ["What is 17 + 25 - 9?", "hello", "What is 17 + 25 - 9?"]
checkpoint = Checkpoint.load(files)
asked = [checkpoint.opened([{"role": "user", "content": said}], {}) for said in questions]
stops = frozenset({18})
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
noise = uniforms("key", 3, 12)
there = VLLMSampler(files, Share())
found = []
one, two = checkpoint.tokenizer.encode("12")
for swapped in (False, True):
    if swapped:  # it reads one digit as the other, and is as sure as before
        weight = model.get_input_embeddings().weight.data
        weight[[one, two]] = weight[[two, one]]
    there.load(lambda: ((n, w.detach().float()) for n, w in model.named_parameters()), 0)
    here = sample(model, asked, noise, stop_ids=stops, temperature=1e-6)
    said = there.sample(0.0, asked, noise, stops)
    found.append([said, here])
    for prompt, ids in zip(asked, said):
        drawn = there.drawn[0].row(row_of([*prompt, *ids, 5]))[len(prompt) :]
        assert [math.isnan(known) for known in drawn] == [False] * len(ids) + [True]
print(json.dumps(found))
"""


def python(*arguments: object) -> str:
    rooms = os.pathsep.join(str(ROOT / f) for f in ("server", "training", "clients"))
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": rooms}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_samples_from_the_weights_that_it_was_given() -> None:
    before, after = json.loads(python("-c", SAMPLED, TINY).splitlines()[-1])
    for there, here in (before, after):
        assert there == here
        assert all(ids[-1] == 18 or len(ids) == 12 for ids in there)
    assert before != after


@pytest.mark.timeout(300)
def test_a_run_learns_from_its_rollouts(tmp_path: Path) -> None:
    options = ["--max-num-seqs=8", "--max-model-len=1024"]
    rollouts = {"engine": "vllm", "vllm_options": options, "longest_prompt": 200}
    path = write_recipe(tmp_path / "own.yaml", raw_recipe("brpo", rollouts=rollouts))
    python("-m", "ponder.cli.main", "train", path, "--out", tmp_path / "out", "--threads", "1")
    steps = metrics(tmp_path / "out", "step")
    assert [line["step"] for line in steps] == [1, 2]
    # vLLM's bfloat16 may choose otherwise than float32, but not throughout.
    assert all(line["sampled_tokens"] > 0 and line["entropy"] < 1 for line in steps)
    assert any(line["grad_norm"] > 0 for line in steps)
    # The same weights, in bfloat16 and float32: close, and never the same.
    assert all(0.9 < line["sampler_ratio"] < 1.1 for line in steps)
    assert all(line["sampler_ratio"] != 1 for line in steps)
    assert all(line["sampler_truncated"] < 0.05 for line in steps)
    assert (tmp_path / "out" / "ponder.json").exists()
