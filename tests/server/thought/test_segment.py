import pytest

from ponder.engine.protocol import Chunk, Sampling, TokenLogprob
from ponder.thought.segment import Segment, gather, segment_seed
from server.thought.helpers import EOS, SINGLE


@pytest.mark.parametrize(
    ("budget", "most", "size"),
    [(64, 1, 1), (64, 8, 8), (21, 8, 7), (30, 8, 6), (11, 8, 6), (11, 16, 11), (5, 16, 9)],
)
def test_gather(budget: int, most: int, size: int) -> None:
    assert gather(budget, most) == size


def test_the_first_segment_keeps_the_users_seed() -> None:
    assert segment_seed(None, 3) is None
    assert segment_seed(-5, 0) == -5
    seeds = {segment_seed(seed, number) for seed in range(50) for number in range(3)}
    assert len(seeds) == 150


def test_a_segment_records_what_is_sampled() -> None:
    segment = Segment([1], Sampling(max_tokens=9, logprobs=0), 0, SINGLE.eos_token_ids)
    assert segment.logprob(0) is None
    said = [TokenLogprob(token_id, -1.0) for token_id in (*b"abc", EOS)]
    segment.take(Chunk([*b"abc"], None, said[:3]))
    assert (segment.sampled, segment.finish, segment.at_eos) == ([*b"abc"], None, False)
    segment.take(Chunk([EOS], "stop", said[3:]))
    assert (segment.sampled, segment.finish, segment.at_eos) == ([*b"abc", EOS], "stop", True)
    assert segment.logprob(1) == said[1]
    segment.forget(1)
    assert segment.logprob(1) == said[1]
    segment.truncate(2, "length")
    assert (segment.sampled, segment.finish, segment.at_eos) == ([*b"ab"], "length", False)
