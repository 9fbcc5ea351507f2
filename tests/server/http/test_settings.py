"""What an operator sets, in the environment and as flags, as far as a mistake could open a door."""

from __future__ import annotations

import pytest

from ponder.cli.arguments import UsageError, parse
from ponder.server.settings import Settings, misspelt


def keys(*argv: str) -> list[str]:
    return [key.get_secret_value() for key in parse(Settings, argv, prog="ponder serve").api_key]


def test_keys_are_taken_without_the_blanks_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_API_KEY", " one, two\n")
    assert keys() == ["one", "two"]
    assert keys("--api-key", " three", "--api-key", "four") == ["three", "four"]


@pytest.mark.parametrize("given", ["", " ", "one,", ",", "one, ,two"])
def test_an_empty_key_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("PONDER_API_KEY", given)
    with pytest.raises(UsageError) as caught:
        keys()
    assert str(caught.value).startswith("PONDER_API_KEY: an empty key would let everybody in: ")
    assert "one" not in str(caught.value)
    monkeypatch.delenv("PONDER_API_KEY")
    with pytest.raises(UsageError, match=r"--api-key: an empty key .* take it out"):
        keys("--api-key", "one", "--api-key", "")
    assert keys() == []


def test_blanks_count_in_close_texts_alone() -> None:
    settings = Settings(  # type: ignore[call-arg]
        allowed_close_text=["\nTime is up.\n</think>\n\n"], cors_origin=[" https://a.example\n"]
    )
    assert settings.allowed_close_text == ["\nTime is up.\n</think>\n\n"]
    assert settings.cors_origin == ["https://a.example"]


def test_a_variable_without_a_value_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an .env file or a manifest writes it. An empty key is refused above, and not ignored."""
    unset = Settings()  # type: ignore[call-arg]
    for name in Settings.model_fields:
        if name != "api_key":
            monkeypatch.setenv(f"PONDER_{name}".upper(), "")
    assert Settings() == unset  # type: ignore[call-arg]


def test_a_variable_that_is_nearly_a_settings_is_said() -> None:
    given = dict.fromkeys(
        ("PONDER_DEFAULT_BUGET", "PONDER_APIKEY", "PONDER_PORT", "PONDER_URL", "HOME"), "1"
    )
    assert list(misspelt(given)) == [
        "PONDER_DEFAULT_BUGET sets nothing: did you mean PONDER_DEFAULT_BUDGET?",
        "PONDER_APIKEY sets nothing: did you mean PONDER_API_KEY?",
    ]
