import pickle
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml

from killing import kill_parent
from ponder.errors import TrainingError
from ponder.training.coldstart import examples
from ponder.training.coldstart.examples import Example, ExampleWriter
from ponder.training.coldstart.sft import SftResult, batch_loss, lr_schedule, train_sft
from ponder.training.coldstart.stream import BatchStream, Place
from ponder.training.coldstart.writers import WrittenAhead, collate
from ponder.training.command import Options, run
from ponder.training.run.directory import checkpoints
from ponder.training.run.recipe import Checkpoints, SftRecipe


def test_a_run_is_a_function_of_its_recipe(recipe: SftRecipe, trained: SftResult) -> None:
    one, two = trained, train_sft(recipe, progress=False)
    assert one.losses == two.losses
    assert len(one.losses) == 3
    assert [step for step, _ in one.validation] == [3]
    for (name, left), right in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name
    other = train_sft(recipe.model_copy(update={"seed": 6}), progress=False)
    assert other.losses != one.losses


def test_padding_changes_no_loss(trained: SftResult) -> None:
    short = Example([5, 6, 7, 8], [False, False, True, True])
    long = Example([9, 10, 11, 12, 13, 14, 15], [False] * 7)
    with torch.no_grad():
        assert batch_loss(trained.model, [short]).item() == pytest.approx(
            batch_loss(trained.model, [short, long]).item(), abs=1e-5
        )


def test_collate_pads_on_the_right() -> None:
    ids_B_T, learnt_B_T = collate([Example([1, 2], [False, True]), Example([3], [True])])
    assert ids_B_T.tolist() == [[1, 2], [3, 0]]
    assert learnt_B_T.tolist() == [[False, True], [True, False]]


def test_the_learning_rate_rises_then_falls() -> None:
    factor = lr_schedule(warmup=4, steps=100)
    rates = [factor(step) for step in range(101)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[100] == pytest.approx(0.02)


def test_a_stream_goes_on_from_its_place(
    recipe: SftRecipe, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stopped: within the first pool, between two, among terse ones and after."""
    monkeypatch.setattr(examples, "_POOL", 12)
    writer = ExampleWriter(tokenizer, recipe.traces, "train")

    def stream(place: Place | None = None) -> BatchStream:
        return BatchStream(writer, Random(3), 512, 10, place)

    whole = stream()
    places, given = [], []
    for _ in range(20):
        places.append(whole.place)
        given.append(next(whole))
    assert len({place.state for place in places}) > 2
    for at, place in enumerate(places):
        again = stream(place)
        assert [next(again) for _ in given[at:]] == given[at:]


@pytest.mark.timeout(900)
def test_a_killed_cold_start_ends_as_if_it_had_not_been(recipe: SftRecipe, tmp_path: Path) -> None:
    plan = recipe.optimisation.model_copy(update={"steps": 120, "tokens_per_step": 512})
    own = recipe.model_copy(
        update={"optimisation": plan, "checkpoints": Checkpoints(every=20, keep=2)}
    )
    path, whole, killed = tmp_path / "own.yaml", tmp_path / "whole", tmp_path / "killed"
    path.write_text(yaml.safe_dump(own.model_dump(mode="json")))
    command = [sys.executable, "-m", "ponder.cli.main", "train", str(path), "--threads", "1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--out", str(killed)], stderr=log)
        try:
            while not checkpoints(killed):
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.01)
        finally:
            process.kill()
            status = process.wait()
    assert status == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()
    half = killed / "staging" / "checkpoint-9"
    half.mkdir(parents=True, exist_ok=True)

    for out, resume in ((whole, False), (killed, True), (killed, True)):
        assert run(Options(recipe=str(path), out=out, threads=1, resume=resume)) == 0
        names = ["checkpoint-100", "checkpoint-120"]
        assert [found.name for found in checkpoints(out)] == names
    held = {file.relative_to(whole) for file in whole.rglob("*") if file.is_file()}
    assert held == {file.relative_to(killed) for file in killed.rglob("*") if file.is_file()}
    for name in ("model.safetensors", "recipe.json", "ponder.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    one, two = (
        torch.load(out / "checkpoints" / "checkpoint-120" / "state.pt") for out in (whole, killed)
    )
    assert one["losses"] == two["losses"]
    assert one["validation"] == two["validation"]
    assert (one["tokens"], one["place"]) == (two["tokens"], two["place"])


def test_batches_that_are_written_ahead_repeat_from_their_key(
    recipe: SftRecipe, tokenizer: Any
) -> None:
    writer = ExampleWriter(tokenizer, recipe.traces, "train")
    given = []
    for key in ("1", "1", "2"):
        with closing(WrittenAhead(writer, key, 2048, processes=2)) as ahead:
            given.append([next(ahead) for _ in range(4)])
    one, again, other = given
    assert all(torch.equal(a.ids_B_T, b.ids_B_T) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a.ids_B_T, b.ids_B_T) for a, b in zip(one, other, strict=True))
    assert all(batch.ids_B_T.numel() <= 2048 and batch.learnt_B_T.any() for batch in one)
    assert not torch.equal(one[0].ids_B_T, one[1].ids_B_T)  # each process writes its own


def test_a_writer_that_died_is_named(recipe: SftRecipe, tokenizer: Any) -> None:
    writer = ExampleWriter(tokenizer, recipe.traces, "train")
    vars(writer)["_mix"] = None  # no example can be written
    died = pytest.raises(TrainingError, match="a writer of batches ended with 1")
    with closing(WrittenAhead(writer, "1", 2048, processes=1)) as ahead, died:
        next(ahead)


def test_a_run_ends_when_its_time_is_over(recipe: SftRecipe) -> None:
    """With batches that are written ahead, as on a GPU."""
    plan = recipe.optimisation.model_copy(update={"steps": 10_000})
    own = recipe.model_copy(update={"optimisation": plan})
    end = time.monotonic() + 5.0
    result = train_sft(own, progress=False, end=end)
    assert 1 <= len(result.losses) < 10_000 and result.validation
    assert time.monotonic() > end


def test_no_batch_comes_again_after_those_that_were_written_ahead(
    recipe: SftRecipe, tokenizer: Any, tmp_path: Path
) -> None:
    own = recipe.model_copy(update={"checkpoints": Checkpoints(every=1, keep=3)})
    train_sft(own, progress=False, out=tmp_path, end=time.monotonic() + 600)
    writer = ExampleWriter(tokenizer, recipe.traces, "train")
    following = []
    for checkpoint in checkpoints(tmp_path):
        place = Place(*torch.load(checkpoint / "state.pt", weights_only=True)["place"])
        assert place.first == int(checkpoint.name.removeprefix("checkpoint-"))
        following.append(next(BatchStream(writer, Random(), 512, 10, place)))
    assert len(following) == 3
    assert following[0] != following[1] != following[2] != following[0]


def test_time_that_was_over_before_the_first_step_leaves_one(recipe: SftRecipe) -> None:
    assert len(train_sft(recipe, progress=False, end=time.monotonic()).losses) == 1


def test_writers_end_with_a_trainer_that_is_killed(
    recipe: SftRecipe, tokenizer: Any, tmp_path: Path
) -> None:
    pickled = tmp_path / "writer"
    pickled.write_bytes(pickle.dumps(ExampleWriter(tokenizer, recipe.traces, "train")))
    script = (
        "import pickle, sys, time\nfrom pathlib import Path\n"
        "from ponder.training.coldstart.writers import WrittenAhead\n"
        "if __name__ == '__main__':\n"
        f"    writer = pickle.loads(Path({str(pickled)!r}).read_bytes())\n"
        "    ahead = WrittenAhead(writer, '1', 512, processes=1)\n"
        "    next(ahead)\n"
        "    print(*(process.pid for process in ahead._processes), flush=True)\n"
        "    time.sleep(600)\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    kill_parent([path])
