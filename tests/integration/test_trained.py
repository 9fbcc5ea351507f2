"""What training exports is what is served: a short run, a real server, the official client."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from training.policy import recipe, train

from .conftest import ServerProcess, start_server

pytestmark = pytest.mark.engine

BUDGETS = [20, 40, 80, 100]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("trained")
    train(recipe(folder, "hbpo"), folder / "hbpo")
    running = start_server(folder / "log", str(folder / "hbpo"))
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def test_an_hbpo_run_is_served_with_its_contract(trained: ServerProcess) -> None:
    with openai.OpenAI(base_url=f"{trained.url}/v1", api_key="none", max_retries=0) as client:
        (model,) = client.models.list().data
        capabilities = model.ponder  # type: ignore[attr-defined]
        assert capabilities["trained_budgets"] == BUDGETS
        assert capabilities["format"] == "contract (hbpo)"
        reply = client.chat.completions.create(
            model="hbpo",
            messages=[{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}],
            extra_body={"thinking_token_budget": 40},
            seed=1,
        )
    choice = reply.choices[0]
    report = choice.ponder  # type: ignore[attr-defined]
    assert choice.message.content
    assert report["budget_effective"] == 40
    assert 0 < report["thinking_tokens"] <= 40
    assert bool(report["forced_tokens"]) == report["answer_forced"]
    assert "contract (hbpo)" in trained.log.read_text()
