"""The shipped configurations are what accelerate reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

import ponder.training

SHIPPED = Path(ponder.training.__path__[0]) / "accelerate"
KINDS = {
    "multi-gpu": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "zero3": DistributedType.DEEPSPEED,
}


def test_all_are_named() -> None:
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_accelerate_reads_them(name: str, kind: DistributedType) -> None:
    config = load_config_from_file(str(SHIPPED / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.mixed_precision == "bf16"
    if name == "fsdp2":
        from accelerate.commands.launch import launch_command_parser

        known = {action.dest for action in launch_command_parser()._actions}
        assert set(config.fsdp_config) <= known
        assert config.fsdp_config["fsdp_version"] == 2
    if name == "zero3":
        assert config.deepspeed_config["zero_stage"] == 3
        assert config.deepspeed_config["zero3_save_16bit_model"]
