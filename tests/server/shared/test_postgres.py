"""The ledgers of several servers in one Postgres: one experiment, whichever of them is asked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder.experiment import ledger as ledger_module
from ponder.experiment import postgres as postgres_module
from ponder.experiment.holdout import ARMS, Assignment
from ponder.experiment.ledger import Ledger
from ponder.experiment.moments import Moments, compare
from ponder.experiment.postgres import PostgresStore
from ponder.experiment.store import Entry, Key, StateError
from stores import PostgresServer

SETTINGS = '{"model": "tiny"}'


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """An empty database."""
    return postgres_server.database(f"d{secrets.token_hex(8)}")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ledger_module, "RETRY_SECONDS", 0.0)
    yield


def entry(conversation: int | None, tokens: float, id: str | None = None) -> Entry:
    arm = ARMS[(conversation or int(tokens)) % 2]
    name = None if conversation is None else f"{conversation:032x}"
    return Entry(Assignment(name, arm), {"tokens": (1.0, tokens), "empty": (1.0, 0.0)}, id)


def merged(entries: list[Entry]) -> dict[Key, Moments]:
    """The sums of one ledger that had them all, by their definition."""
    sums: dict[tuple[Any, ...], tuple[float, float]] = {}
    for number, each in enumerate(entries):
        for measure, (count, total) in each.measures.items():
            unit = each.assignment.conversation or number
            before = sums.get((each.assignment.arm, measure, unit), (0.0, 0.0))
            sums[each.assignment.arm, measure, unit] = (before[0] + count, before[1] + total)
    totals: dict[Key, Moments] = {}
    for (arm, measure, _), (count, total) in sums.items():
        totals[arm, measure] = totals.get((arm, measure), Moments()) + Moments.of(count, total)
    return totals


conversations = st.one_of(st.none(), st.integers(1, 6))
requests = st.lists(st.tuples(st.integers(0, 2), conversations, st.integers(0, 500)), max_size=40)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(requests)
def test_several_servers_keep_what_one_would(
    postgres_server: PostgresServer, asked: list[tuple[int, int | None, int]]
) -> None:
    """Conversations that go on at another server too; the interval is that of one ledger."""
    own = f'{{"example": "{secrets.token_hex(8)}"}}'

    async def go() -> None:
        ledgers = [Ledger(postgres_server.url, own) for _ in range(3)]
        try:
            entries = []
            for server, conversation, tokens in asked:
                entries.append(entry(conversation, float(tokens)))
                ledgers[server].record(entries[-1])
            await asyncio.gather(*(ledger.refresh() for ledger in ledgers))
            expected = merged(entries)
            for ledger in ledgers:
                totals = await ledger.refresh()
                assert dict(totals) == expected
                arms = [(totals.get((arm, "tokens"), Moments())) for arm in ARMS]
                want = [(expected.get((arm, "tokens"), Moments())) for arm in ARMS]
                assert compare(*arms, share=0.5) == compare(*want, share=0.5)
            assert len({ledger.experiment for ledger in ledgers}) == 1
        finally:
            for ledger in ledgers:
                ledger.close()

    asyncio.run(go())


def test_a_response_is_rated_at_any_server(url: str) -> None:
    one, other = secrets.token_hex(16), secrets.token_hex(16)

    async def go() -> None:
        with closing(Ledger(url, SETTINGS)) as here, closing(Ledger(url, SETTINGS)) as there:
            here.record(entry(2, 10.0, f"chatcmpl-{one}"))
            here.record(entry(None, 10.0, f"chatcmpl-{other}"))
            await here.refresh()
            assert await there.rate(f"chatcmpl-{one}", 0.25)
            assert await here.rate(f"chatcmpl-{one}", 0.5)
            assert await there.rate(f"chatcmpl-{other}", 0.0)
            assert await there.rate(f"chatcmpl-{other}", 1.0)
            assert not await there.rate("chatcmpl-unknown", 1.0)
            totals = await there.refresh()
            assert totals["policy", "feedback"] == Moments.of(1.0, 0.5) + Moments.of(1.0, 1.0)

    asyncio.run(go())


def test_servers_that_start_together_make_one_experiment(url: str) -> None:
    async def go() -> None:
        opened = (asyncio.to_thread(PostgresStore, url, SETTINGS) for _ in range(6))
        stores = await asyncio.gather(*opened)
        assert len({store.experiment for store in stores}) == 1
        for store in stores:
            store.close()

    asyncio.run(go())


def test_a_batch_whose_commit_nobody_heard_of_counts_once(url: str) -> None:
    with closing(PostgresStore(url, SETTINGS)) as store:
        for _ in range(2):
            store.write([entry(2, 7.0)], "a batch")
        store.write([entry(2, 7.0)], "another")
        assert store.totals()["policy", "tokens"] == Moments.of(2.0, 14.0)


@pytest.mark.parametrize("fault", ["killed", "suspended"])
def test_what_comes_while_postgres_is_away_is_written_when_it_is_back(
    postgres_server: PostgresServer, url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "ANSWER_SECONDS", 1.0)

    async def go() -> None:
        with closing(Ledger(url, SETTINGS)) as ledger:
            ledger.record(entry(2, 1.0))
            await ledger.refresh()
            if fault == "killed":
                postgres_server.kill()
            else:
                postgres_server.suspend()
            try:
                ledger.record(entry(2, 2.0))
                with pytest.raises(StateError, match="see that it runs, can be reached"):
                    await ledger.refresh()
                ledger.record(entry(2, 3.0))
            finally:
                if fault == "killed":
                    postgres_server.start()
                else:
                    postgres_server.resume()
            while ledger.pending:
                try:
                    await ledger.refresh()
                except StateError:
                    await asyncio.sleep(0.05)
            totals = await ledger.refresh()
            assert totals["policy", "tokens"] == Moments.of(3.0, 6.0)
            assert (ledger.lost, ledger.pending) == (0, 0)
            assert ledger.failures

    asyncio.run(go())


def test_what_is_wrong_is_said_without_the_password(url: str, tmp_path: object) -> None:
    nobody = url.replace("ponder@", "ponder:secret@").replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(StateError, match="see that it runs") as refused:
        PostgresStore(nobody, SETTINGS)
    assert "secret" not in str(refused.value)
    PostgresStore(url, SETTINGS).close()
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("UPDATE ponder_schema SET version = 99")
    with pytest.raises(StateError, match=r"has format 99 .* choose another database"):
        PostgresStore(url, SETTINGS)
