"""Token ids to bytes: exact for every text, for both kinds of tokenizer."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ponder.engine.tokenizer import HFTokenizer, ModelFiles, TokenizerError
from ponder.server.settings import BUNDLED_MODEL
from ponder.thought.text import TextDecoder

any_text = st.text(st.characters(exclude_categories=["Cs"]))


@cache
def bundled() -> HFTokenizer:
    return HFTokenizer(Path(BUNDLED_MODEL))


@given(any_text)
def test_any_text_round_trips(text: str) -> None:
    assert bundled().decode(bundled().encode(text)) == text


@given(any_text)
def test_incremental_decoding_gives_the_whole_text(text: str) -> None:
    decoder = TextDecoder(bundled())
    assert "".join(map(decoder.feed, bundled().encode(text))) == text
    assert not decoder.pending


def test_special_tokens_have_no_text_and_markers_do() -> None:
    tokenizer = bundled()
    assert all(tokenizer.token_bytes(token_id) == b"" for token_id in tokenizer.eos_token_ids)
    (marker,) = tokenizer.encode("</think>")
    assert tokenizer.token_bytes(marker) == b"</think>"
    assert tokenizer.token_bytes(10**6) == b""


def save(directory: Path, tokenizer: Tokenizer) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(directory)
    return directory


def test_sentencepiece_with_byte_fallback(tmp_path: Path) -> None:
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "1"]
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[("▁", "a")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(["</s>"])
    tokenizer = HFTokenizer(save(tmp_path, backend))
    text = "a 1 a漢🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "</s>": 1, "a": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(TokenizerError, match="neither byte-level"):
        HFTokenizer(save(tmp_path, backend))


def test_a_directory_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        ModelFiles.find(str(tmp_path))


@settings(max_examples=20, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), st.floats(0.5, 2)
)
def test_no_text_that_fits_is_said_to_be_beyond(unit: str, share: float) -> None:
    """Long texts, so that they are looked at in slices."""
    text = unit * (140_000 // len(unit))
    tokens = len(bundled().encode(text))
    most = round(tokens * share)
    roughly = bundled().beyond(text, most)
    if roughly is not None:
        assert tokens > most
        assert most < roughly
    else:
        assert tokens <= most * 1.3


def test_a_text_beyond_the_context_is_told_by_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a slice of it is encoded."""
    read: list[int] = []
    encode = HFTokenizer.encode
    monkeypatch.setattr(
        HFTokenizer, "encode", lambda self, text: read.append(len(text)) or encode(self, text)
    )
    roughly = bundled().beyond("word " * 800_000, 4096)
    assert roughly is not None and 400_000 < roughly < 4_000_000
    assert sum(read) <= 16_384
    assert bundled().beyond("word " * 800, 4096) is None
    assert sum(read) <= 16_384


def test_a_normalizer_may_make_a_text_shorter(tmp_path: Path) -> None:
    longest = [HFTokenizer(save(tmp_path / "plain", _byte_level(None)))._longest]
    longest.append(HFTokenizer(save(tmp_path / "nfc", _byte_level(normalizers.NFC())))._longest)
    assert longest[1] == 3 * longest[0]


def _byte_level(normalizer: normalizers.Normalizer | None) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocab = {piece: index for index, piece in enumerate(["</s>", *sorted(alphabet)])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["</s>"])
    return backend


HELLO = [{"role": "user", "content": "Hello"}]


def model_directory(directory: Path, template: str | dict[str, str] | None = None) -> Path:
    """The smallest that there is: a config and a tokenizer."""
    save(directory, _byte_level(None))
    (directory / "config.json").write_text("{}")
    if template is not None:
        config = directory / "tokenizer_config.json"
        named = template
        if isinstance(template, dict):
            named = [{"name": name, "template": text} for name, text in template.items()]
        said = json.loads(config.read_text()) | {"chat_template": named}
        config.write_text(json.dumps(said))
    return directory


def test_a_tekken_beside_a_tokenizer_is_not_read(tmp_path: Path) -> None:
    directory = model_directory(tmp_path, "[{{ messages[0].content }}]")
    (directory / "tekken.json").write_text("{}")
    tokenizer = HFTokenizer(directory)
    assert tokenizer.decode(tokenizer.encode("naïve 🙂")) == "naïve 🙂"
    assert tokenizer.render(HELLO, {}) == "[Hello]"


def test_a_tekken_alone_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tekken\.json and no tokenizer\.json.*: add the"):
        HFTokenizer(tmp_path)


def test_a_directory_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(TokenizerError, match=r"no tokenizer \(tokenizer\.json\): download"):
        HFTokenizer(tmp_path)


def test_of_named_templates_the_default_is_used(tmp_path: Path) -> None:
    named = {"tool_use": "{{ tool }}", "default": "{{ tone }}: {{ messages[0].content }}"}
    tokenizer = HFTokenizer(model_directory(tmp_path, named))
    assert tokenizer.chat_template == named["default"]
    assert tokenizer.render(HELLO, {"tone": "warm"}) == "warm: Hello"
    assert tokenizer.template_variables == {"tone"}


def test_templates_in_their_own_files_are_named(tmp_path: Path) -> None:
    directory = model_directory(tmp_path)
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tool }}")
    with pytest.raises(TokenizerError, match=r"called tool_use, and none of them default: save"):
        HFTokenizer(directory)
    (directory / "chat_template.jinja").write_text("default")
    assert HFTokenizer(directory).render(HELLO, {}) == "default"


def test_no_template_is_none(tmp_path: Path) -> None:
    assert HFTokenizer(model_directory(tmp_path)).chat_template == ""
