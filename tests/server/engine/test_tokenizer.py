"""Token ids to bytes: exact for every text, for both kinds of tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
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
