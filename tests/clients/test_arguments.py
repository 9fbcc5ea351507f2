"""From argv to `Options`: what was typed arrives as typed, and mistakes are sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, NoDecode, SettingsConfigDict

from ponder.cli.arguments import UsageError, parse


class Serve(BaseSettings):
    """Serve things.

    At length.
    """

    model_config = SettingsConfigDict(env_prefix="THING_", extra="forbid")

    model: CliPositionalArg[str] = Field("small", description="the model")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port; 100% needed")
    ceiling: Annotated[int, Field(ge=0)] | None = Field(None, description="most tokens")
    text: list[str] = Field([], description="a text; repeat for several")
    key: Annotated[list[SecretStr], NoDecode] = Field([], description="a key")
    quiet: bool = Field(False, description="say less")
    engine_options: list[str] = Field([], description="passed on")


class Work(BaseModel):
    """Work hard."""

    recipe: CliPositionalArg[str] = Field(description="name of a recipe")
    budgets: list[int] = Field([0, 8], description="budgets in tokens")
    rate: float = Field(0.5, ge=0, description="a rate")
    mode: Literal["fast", "slow"] = Field("fast", description="how")
    size: Literal["small", "middle", "large"] = Field("small", description="how large")
    out: Path | None = Field(None, description="where to")
    seed: int | None = Field(None, description="seed")
    report: Path | None = Field(None, alias="json", description="where to write the numbers")
    dry: bool = Field(False, description="only say what would be done")
    loud: bool | None = Field(None, description="say more")
    secret: SecretStr | None = Field(None, min_length=3, max_length=9, description="a secret")
    word: str | None = Field(None, min_length=2, description="a word")
    pair: list[str] = Field([], max_length=1, description="words")

    @field_validator("out")
    @classmethod
    def _relative(cls, out: Path | None) -> Path | None:
        if out is not None and out.is_absolute():
            raise ValueError("an absolute path, which moves badly, is not taken: give a name")
        return out

    @model_validator(mode="after")
    def _agree(self) -> Work:
        if self.mode == "slow" and self.rate > 1:
            raise ValueError("slow work has a rate of at most 1: lower --rate")
        return self


def serve(*argv: str) -> Serve:
    return parse(Serve, argv, prog="thing serve")


def work(*argv: str) -> Work:
    return parse(Work, argv, prog="thing work")


def problems(options: type[BaseModel], *argv: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse(options, argv, prog="thing do")
    return list(caught.value.problems)


def test_a_flag_has_the_alias_of_its_field() -> None:
    assert work("tiny", "--json", "out.json").report == Path("out.json")
    assert problems(Work, "x", "--jsn", "y") == ["--jsn is not an option: did you mean --json?"]


def test_nothing_given_is_the_defaults() -> None:
    assert serve() == Serve()


def test_values_of_every_type() -> None:
    got = work("tiny", "--rate", "0.25", "--mode=slow", "--out", "a/b", "--seed", "-3")
    assert (got.recipe, got.rate, got.mode, got.out, got.seed) == (
        "tiny",
        0.25,
        "slow",
        Path("a/b"),
        -3,
    )


@pytest.mark.parametrize(
    "text", ["one, two", '{"a": [1, "x"]}', "null", '"quoted"', "back\\slash", "1.0", " ", "日本"]
)
def test_texts_arrive_as_typed(text: str) -> None:
    assert serve("--text", text, "--text", "more").text == [text, "more"]


def test_a_list_does_not_swallow_the_positional() -> None:
    got = serve("--text", "a", "large")
    assert (got.text, got.model) == (["a"], "large")


@pytest.mark.parametrize(
    "argv", [("--budgets", "-1,0,32"), ("--budgets", "-1", "--budgets", "0,32")]
)
def test_numbers_may_be_listed(argv: tuple[str, ...]) -> None:
    assert work("tiny", *argv).budgets == [-1, 0, 32]


def test_flags_switch_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve("--quiet").quiet
    monkeypatch.setenv("THING_QUIET", "true")
    assert serve().quiet
    assert not serve("--no-quiet").quiet


def test_what_is_off_unless_it_is_given_has_no_other_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only the environment, or a default of the server's, could have switched it on."""
    assert (work("tiny", "--dry").dry, work("tiny").dry) == (True, False)
    assert (work("tiny", "--no-loud").loud, work("tiny").loud) == (False, None)
    with pytest.raises(SystemExit):
        work("--help")
    said = capsys.readouterr().out
    assert "--no-loud" in said
    assert "--no-dry" not in said


def test_what_follows_two_dashes_passes_unchanged() -> None:
    options = ["--config", '{"a": 1}', "--x=1,2", "--", "-O3", "--help"]
    got = serve("large", "--port", "1", "--", *options)
    assert (got.model, got.port, got.engine_options) == ("large", 1, options)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING_PORT", "1")
    assert (serve().port, serve("--port", "2").port) == (1, 2)


def test_a_plain_model_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "4")
    assert work("tiny").seed is None


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--port", "x"), "--port must be a valid integer, not x"),
        (("--port", "-4"), "--port must be greater than or equal to 0, not -4"),
        (("--port", ""), "--port must be a valid integer, not ''"),
        (("--port",), "--port: expected one argument"),
        (("--prot", "4"), "--prot is not an option: did you mean --port?"),
        (("--xylophone",), "--xylophone is not an option: options of the engine go after --"),
        (("--por=4",), "--por is not an option: did you mean --port?"),
        (("a", "b c"), "unexpected argument 'b c': put quotes around a text with spaces"),
        (("--engine-options", "x"), "--engine-options is not an option: options of the engine"),
    ],
)
def test_a_mistake_is_a_sentence(argv: tuple[str, ...], sentence: str) -> None:
    (problem,) = problems(Serve, *argv)
    assert problem.startswith(sentence)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ((), "RECIPE is required: name of a recipe"),
        (("x", "--mode", "odd"), "--mode must be 'fast' or 'slow', not odd"),
        (("x", "--size", "odd"), "--size must be 'small', 'middle' or 'large', not odd"),
        (("x", "--budgets", "0,x"), "--budgets must be a valid integer, not x"),
        (("x", "--xylophone"), "--xylophone is not an option: see thing do --help"),
        (("x", "--rate", "-1"), "--rate must be greater than or equal to 0, not -1"),
        (
            ("x", "--out", "/a"),
            "--out: an absolute path, which moves badly, is not taken: give a name",
        ),
        (("x", "--secret", "ab"), "--secret must have at least 3 characters"),
        (("x", "--secret", "a" * 10), "--secret must have at most 9 characters"),
        (("x", "--word", "a"), "--word must have at least 2 characters, not a"),
        (("x", "--pair", "a", "--pair", "b"), "--pair must have at most 1 item"),
        (("x", "--", "y"), "nothing can follow -- here: leave it out"),
        (("x", "--mode", "slow", "--rate", "2"), "slow work has a rate of at most 1: lower --rate"),
    ],
)
def test_a_mistake_of_a_plain_model_is_a_sentence(argv: tuple[str, ...], sentence: str) -> None:
    assert problems(Work, *argv) == [sentence]


def test_every_mistake_is_told() -> None:
    assert len(problems(Serve, "--port", "x", "--ceiling", "-1")) == 2


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING_PORT", "99999")
    assert problems(Serve) == ["THING_PORT must be less than or equal to 65535, not 99999"]
    monkeypatch.setenv("THING_TEXT", "not json")
    monkeypatch.delenv("THING_PORT")
    (problem,) = problems(Serve)
    assert '"text"' in problem
    assert problem.endswith("write a list as JSON")


def test_secrets_are_not_repeated() -> None:
    (problem,) = problems(Work, "x", "--secret", "ab")
    assert problem.startswith("--secret")
    assert "ab" not in problem.removeprefix("--secret")


def test_help_reads_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        serve("--help")
    text = capsys.readouterr().out
    assert "usage: thing serve [options] [MODEL] [-- options of the engine]" in text
    assert "Serve things.\n\nAt length." in text
    assert "--port N" in text
    assert "port; 100% needed (default: 8000)" in text
    assert "--text TEXT" in text
    assert "--quiet, --no-quiet" in text
    assert "THING_SOME_OPTION" in text
    for noise in ("engine-options", "list[", "None", "null", "[]"):
        assert noise not in text


def test_help_of_a_plain_model_says_nothing_of_the_environment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        work("-h")
    text = capsys.readouterr().out
    assert "usage: thing work [options] RECIPE\n" in text
    assert "--mode fast|slow" in text
    assert "--budgets N,…" in text
    assert "(default: 0,8)" in text
    assert "environment" not in text
    assert "Undefined" not in text
