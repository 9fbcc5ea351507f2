"""Several processes on one machine learn what one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from training.policy import MEASURED, TINY, furthest, metrics, quiet, recipe, train, weights

RANK = """
import os, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from ponder.training.run.recipe import load_recipe
from ponder.training.run.run import Run
from ponder.tasks.workers import VerifierPool

torch.set_num_threads(1)
out = Path(sys.argv[2])
with VerifierPool(1) as pool:
    run = Run(load_recipe(Path(sys.argv[1])), out, pool.judge, False)
    run.train(progress=False)
state = {name: value.clone() for name, value in run.engine.weights()}
save_file(state, out / f"rank{os.environ['RANK']}.safetensors")

# FSDP2 on the same processes: each samples for as long as it takes, nobody waits for a forward.
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM
from ponder.training.engines.scoring import add_scoring, score
from ponder.training.engines.sharding import gathered, merged
from ponder.training.rollout.rows import Row, collate
from ponder.training.rollout.drive import uniforms
from ponder.training.rollout.sampler import sample

model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
add_scoring(model)
asked, noise, never = [[5, 6, 7]], uniforms("key", 1, 20), frozenset({-1})
whole = sample(model, asked, noise, stop_ids=never)
batch = collate([Row((5, 6, 7), (8, 9), (1.0, 1.0), (True, True))], pad_id=0)
scores, _ = score(model, batch)
scores.sum().backward()
plain = {name: (p.detach().clone(), p.grad) for name, p in model.named_parameters()}
model.zero_grad()
for part in (*model.model.layers, model):
    fully_shard(part, mesh=init_device_mesh("cpu", (2,)))
length = 20 if os.environ["RANK"] == "0" else 7
with gathered(model):
    assert sample(model, asked, noise[:, :length], stop_ids=never)[0] == whole[0][:length]
assert all(len(p.to_local()) < len(p) for p in model.parameters() if len(p) > 1)
shared, _ = score(model.train(), batch)
torch.testing.assert_close(shared, scores)
shared.sum().backward()
for name, p in model.named_parameters():
    torch.testing.assert_close(p.grad.full_tensor(), plain[name][1])
for name, p in merged(model.state_dict(keep_vars=True), 0.0):
    assert name not in plain or torch.equal(p, plain[name][0]), name
torch.distributed.destroy_process_group()
"""


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    # Components that ask the other process: through `gather`, and by scores of their own.
    add: list[dict[str, Any]] = [{"progrpo": {}}, {"d3s": {"tokens": 1}}]
    own = recipe(
        tmp_path, "hbpo", method={"add": add}, optimisation={"steps": 1, "tokens_per_pass": 400}
    )
    alone, both = tmp_path / "alone", tmp_path / "both"
    train(own, alone)
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    port = ["--master_port", "0", "--standalone"]
    done = subprocess.run(
        [*launch, *port, str(script), str(tmp_path / "own.yaml"), str(both)],
        env=quiet(), capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(both / f"rank{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    checkpoint = Path("checkpoints") / "checkpoint-2"
    assert furthest(weights(alone / checkpoint), weights(TINY)) > 0
    assert furthest(weights(alone / checkpoint), weights(both / checkpoint)) < 1e-5
    (one,), (two,) = metrics(alone, "step"), metrics(both, "step")
    for name in MEASURED:
        assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-6), name
    assert metrics(alone, "validation")[0] == metrics(both, "validation")[0]
