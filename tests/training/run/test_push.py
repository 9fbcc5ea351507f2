"""`--push`: what goes to the hub, without the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ponder.training.command import Options, run
from ponder.training.run.push import push
from training.policy import TINY


class Hub:
    """Writes down what it is asked."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}

    def create_repo(self, name: str, **options: Any) -> str:
        self.made = {"name": name, **options}
        return f"https://hub/{name}"

    def upload_folder(self, **options: Any) -> None:
        self.asked = options


def test_what_is_served_goes_up_and_states_stay(tmp_path: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    kept = ("config.json", "model.safetensors", "ponder.json", "adapter/adapter_config.json")
    stays = ("checkpoints/checkpoint-2/model.safetensors", "best/ponder.json", "samples.jsonl")
    hub = Hub()
    assert push(tmp_path, "me/short", hub) == "https://hub/me/short"
    assert hub.made == {"name": "me/short", "private": True, "exist_ok": True}
    assert (hub.asked["repo_id"], hub.asked["folder_path"]) == ("me/short", str(tmp_path))
    sent = filter_repo_objects((*kept, *stays), ignore_patterns=hub.asked["ignore_patterns"])
    assert tuple(sent) == kept


@pytest.mark.parametrize(
    ("name", "said"), [("a/b/c", "--push: "), ("me/short", "--push: nobody is logged in")]
)
def test_what_cannot_be_pushed_is_said_before_training(
    name: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    out = tmp_path / "out"
    assert run(Options(recipe="tiny-grpo", base=str(TINY), out=out, push=name)) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
