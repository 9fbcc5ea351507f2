"""Sharded over two processes on the CPU, FSDP2 and ZeRO-3 learn what one process does.

accelerate shards on GPUs alone, and on a CPU runs the same configuration as DDP, in silence: here
it is told that it has GPUs. What it and the engine do then is what they do on GPUs, over gloo.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from ponder.engine.tokenizer import ModelFiles
from ponder.training.engines.accelerate import AccelerateEngine
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.kernel import ClippedObjective
from ponder.training.rollout.rows import Row
from training.policy import TINY, quiet, recipe

ROWS = [
    Row((5, 6, 7), (8, 9, 10, 11), (1.0,) * 4, (True,) * 4),
    Row((5, 6), (12, 13), (-1.0,) * 2, (True,) * 2),
    Row((5, 6), (14, 15, 16), (0.5,) * 3, (True,) * 3),
    Row((5, 6), (14, 15, 17), (-0.5,) * 3, (True,) * 3),
]
# As `accelerate launch` spells the shipped configurations.
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
ZERO3 = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
    "DS_ACCELERATOR": "cpu",
}
RANK = """
import json, os, sys
from pathlib import Path
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType

torch.set_num_threads(1)
zero = "DS_ACCELERATOR" in os.environ
PartialState(cpu=True).distributed_type = DistributedType.DEEPSPEED if zero else "MULTI_GPU"

from ponder.training.engines import accelerate
from training.engines.test_sharded import learnt

class OnGpus(Accelerator):
    def __init__(self, cpu, **options):
        super().__init__(**options)

accelerate.Accelerator = OnGpus
if zero:
    import deepspeed
    deepspeed.init_distributed(dist_backend="gloo")
rank, out = int(os.environ["RANK"]), Path(sys.argv[1])
found = learnt(out / str(rank), out / "state", rank, 2)
(out / f"rank{rank}.json").write_text(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def learnt(out: Path, state: Path, rank: int, world: int) -> dict[str, Any]:
    """Two updates, whole weights, samples of different lengths, and an update after a resume."""
    out.mkdir()
    own = recipe(out, "grpo", optimisation={"micro_batches": 1})
    engine = AccelerateEngine(ModelFiles.find(str(TINY)), own, out)
    aim, rows = ClippedObjective(GrpoConfig()), ROWS[rank::world]

    def update() -> float:
        packed = engine.pack(rows, remember=False)
        return engine.update(packed, aim, sum(row.learnt_tokens for row in rows)).grad_norm

    norms = [update(), update()]
    weights = sum(float(whole.double().abs().sum()) for _, whole in engine.weights())
    noise = torch.full((1, 4 + rank), 0.4, dtype=torch.double)
    with engine.sampler() as sample:
        (ids,) = sample([[5, 6]], noise, frozenset({-1}))
    engine.save(state)
    later = update()
    engine.resume(state)
    return {
        "kind": str(engine._accelerator.distributed_type),
        "norms": [*norms, later],
        "resumed": (engine.updates, update()),
        "weights": weights,
        "ids": ids,
    }


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield learnt(tmp_path / "alone", tmp_path / "alone-state", 0, 1)
    torch.set_num_threads(threads)
    AcceleratorState._reset_state()


@pytest.mark.parametrize(
    ("kind", "environment"),
    [
        ("FSDP", FSDP2),
        pytest.param(
            "DEEPSPEED",
            ZERO3,
            marks=pytest.mark.skipif(
                find_spec("deepspeed") is None, reason="pip install deepspeed, which compiles"
            ),
        ),
    ],
)
def test_two_processes_with_half_of_the_weights_learn_what_one_does(
    kind: str, environment: dict[str, str], alone: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "rank.py").write_text(RANK)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    tests = str(Path(__file__).parents[2])
    environ = quiet() | environment
    environ["PYTHONPATH"] = os.pathsep.join([environ["PYTHONPATH"], tests, *sys.path])
    done = subprocess.run(
        [*launch, "--standalone", str(tmp_path / "rank.py"), str(tmp_path)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["kind"] == f"DistributedType.{kind}"
        assert found["norms"] == pytest.approx(alone["norms"], rel=1e-4)
        assert found["resumed"] == [2, pytest.approx(alone["norms"][2], rel=1e-4)]
        assert found["weights"] == pytest.approx(alone["weights"], rel=1e-9)
        assert found["ids"][:4] == alone["ids"]
        assert len(found["ids"]) == 4 + rank
