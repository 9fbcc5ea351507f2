import pytest

from ponder.evaluation.bars import duration, step_bar


def test_the_bar_is_seen_beside_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with step_bar("tiny-length-penalty", 80, 8, shown=True) as bar:
        bar.set_postfix_str("83.1% at 132 tokens, validated 84.3% at 128", refresh=False)
        bar.update(32)
        bar.refresh()
    last = capsys.readouterr().err.split("\r")[-1].rstrip()
    assert last.startswith("tiny-length-penalty 40/80 |")
    assert len(last.split("|")[1]) == 12
    assert last.endswith("validated 84.3% at 128")
    assert len(last) <= 100


@pytest.mark.parametrize(
    ("seconds", "said"), [(3, "3 seconds"), (100, "2 minutes"), (6000, "1.7 hours")]
)
def test_a_time_is_told_in_its_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said
