"""A Hugging Face tokenizer as a Vocabulary and a chat template."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ponder.engine import template
from ponder.errors import SetupError

_SHORT_TEXT = 1 << 17  # characters: a text up to this length is encoded whole
_SLICE = 1 << 14
_MARGIN = 1.25
_TOKENIZERS = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*")
_PROBE = "A sum: 1+2=3, naïve 漢字 🙂\n\tdone."
_TRIED = "a_tool_of_no_template"


GoesOn = Literal["assistant", "last message", "nobody"]
"""Where a prompt ends: before an assistant's turn, within the last message, or after it."""


class TokenizerError(SetupError, ValueError):
    """A tokenizer whose tokens cannot be turned into bytes, or a template that cannot render."""


class HFTokenizer:
    """Encodes, renders chats, and knows the bytes of every token.

    Reads byte-level BPE (Qwen, DeepSeek, GLM, Llama 3 …) and SentencePiece with byte fallback.
    The constructor compares the byte table with the tokenizer's own decoding of a probe.
    """

    def __init__(self, directory: Path) -> None:
        """Raises `TokenizerError`."""
        from transformers import AutoTokenizer

        _check_files(directory)
        # As vLLM's `--tokenizer-mode hf` does: a tekken.json beside it is not read.
        self._tokenizer = AutoTokenizer.from_pretrained(str(directory), mistral_format=False)
        self._backend = self._tokenizer.backend_tokenizer
        self._bytes = _byte_table(self._backend)
        self._generation = _read_json(directory / "generation_config.json")
        self._tokenizer.chat_template = _default(self._tokenizer.chat_template)
        self.eos_token_ids = self._eos_ids()
        self._check_table()

    @property
    def transformers(self) -> Any:
        """The transformers tokenizer, for libraries that need it."""
        return self._tokenizer

    @property
    def size(self) -> int:
        """The number of tokens; a model's embedding may have more rows, which stand for nothing."""
        return len(self._tokenizer)

    def encode(self, text: str, *, special_tokens: bool = False) -> list[int]:
        """Token ids of `text`; `special_tokens` adds the tokenizer's own around it, such as BOS."""
        # A batch of one lets other threads run, which `encode` does not.
        (encoded,) = self._backend.encode_batch_fast([text], add_special_tokens=special_tokens)
        ids: list[int] = encoded.ids
        return ids

    def beyond(self, text: str, most: int) -> int | None:
        """Roughly how many tokens a text has, if it surely has more than `most`; else None.

        Encoding the whole text would take some 300 bytes of memory for each byte. Two facts need no
        encoding: no token is longer than the longest, and slices have only a few tokens more than
        the whole, at each end. `_MARGIN` is many times that.
        """
        sure = len(text.encode()) > most * self._longest
        if not sure and len(text) <= _SHORT_TEXT:
            return None
        tokens = 0
        for start in range(0, len(text), _SLICE):
            tokens += len(self.encode(text[start : start + _SLICE]))
            if sure or tokens > most * _MARGIN:
                read = min(start + _SLICE, len(text))
                return max(most + 1, round(tokens * len(text) / read))
        return None

    @cached_property
    def _longest(self) -> int:
        """The most bytes of text that one token stands for.

        Text that a normalizer composes (NFC, NFKC) was up to three times as long before.
        """
        added = (len(token.content.encode()) for token in self._added())
        longest = max(*map(len, self._bytes.values()), *added)
        return longest * (1 if self._backend.normalizer is None else 3)

    def _added(self) -> Iterable[Any]:
        tokens: dict[int, Any] = self._backend.get_added_tokens_decoder()
        return tokens.values()

    def token_bytes(self, token_id: int) -> bytes:
        """The token's bytes; none for special tokens and padding ids of a larger vocabulary."""
        return self._bytes.get(token_id, b"")

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", errors="replace")

    def spell(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, with special tokens by name: `encode` reads it back."""
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=False)
        return text

    def names(self, token_ids: Sequence[int]) -> list[str]:
        """Tokens as the vocabulary spells them."""
        names: list[str] = self._tokenizer.convert_ids_to_tokens(list(token_ids))
        return names

    @property
    def chat_template(self) -> str:
        """Empty where the model has none."""
        return self._tokenizer.chat_template or ""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        arguments: Mapping[str, Any],
        *,
        goes_on: GoesOn = "assistant",
    ) -> str:
        """The prompt text up to where the assistant, or the last message, goes on.

        Raises `TokenizerError`.
        """
        import jinja2

        if not self.chat_template:
            raise TokenizerError("this model has no chat template: serve one that has")
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=goes_on == "assistant",
                continue_final_message=goes_on == "last message",
                **arguments,
            )
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise TokenizerError(f"the chat template rejects these messages: {error}") from error
        return text

    @cached_property
    def template_variables(self) -> frozenset[str]:
        """Names that the chat template reads beside those that `render` and the tokenizer set.

        Empty for a template that cannot be parsed: `render` says why.
        """
        taken = inspect.signature(self._tokenizer.apply_chat_template).parameters
        tokens = (*self._tokenizer.SPECIAL_TOKENS_ATTRIBUTES, *self._tokenizer.special_tokens_map)
        return self._template_inputs - {"messages", *taken, *tokens}

    @cached_property
    def _template_inputs(self) -> frozenset[str]:
        import jinja2

        try:
            return template.inputs(self.chat_template)
        except jinja2.TemplateError:
            return frozenset()

    @cached_property
    def takes_tools(self) -> bool:
        """Whether the chat template shows tools to the model, also under a name of its own."""
        return "tools" in self._template_inputs or self._shown_tool(description="") is True

    @cached_property
    def needs_descriptions(self) -> bool:
        """Whether the chat template rejects a tool that has no description."""
        return self._shown_tool() is None and self._shown_tool(description="") is not None

    def _shown_tool(self, **more: str) -> bool | None:
        """Whether a prompt names a tool that it is given; None where the template rejects it."""
        parameters = {"type": "object", "properties": {}}
        function = {"name": _TRIED, "parameters": parameters, **more}
        tools = [{"type": "function", "function": function}]
        try:
            return _TRIED in self.render([{"role": "user", "content": "Hello"}], {"tools": tools})
        except TokenizerError:
            return None

    @cached_property
    def special_tokens(self) -> Mapping[int, str]:
        """Special tokens that the chat template writes, with their text; EOS is not among them."""
        written = self.chat_template
        return {
            token_id: token.content
            for token_id, token in self._backend.get_added_tokens_decoder().items()
            if token.special and token_id not in self.eos_token_ids and token.content in written
        }

    @property
    def sampling_defaults(self) -> dict[str, float]:
        """The sampling of the model's generation_config.json, which vLLM's server uses too."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        values = {name: self._generation.get(name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _eos_ids(self) -> frozenset[int]:
        configured = self._generation.get("eos_token_id") or []
        ids = set(configured if isinstance(configured, list) else [configured])
        if self._tokenizer.eos_token_id is not None:
            ids.add(self._tokenizer.eos_token_id)
        return frozenset(ids)

    def _check_table(self) -> None:
        ids = self.encode(_PROBE)
        ours, theirs = self.decode(ids), self._backend.decode(ids, skip_special_tokens=False)
        if ours.strip() != theirs.strip():
            raise TokenizerError(
                f"the bytes of this tokenizer's tokens read {ours!r}, but it decodes them to "
                f"{theirs!r}: its decoder does more than join bytes, which Ponder cannot follow"
            )


def _check_files(directory: Path) -> None:
    """Raise for a directory without a tokenizer: transformers would make an empty one."""
    if any(file for kind in _TOKENIZERS for file in directory.glob(kind)):
        return
    if (directory / "tekken.json").exists():
        raise TokenizerError(
            f"{directory} has Mistral's tekken.json and no tokenizer.json, which Ponder reads: add "
            f"the tokenizer.json and the chat_template.jinja of the model's Hugging Face format"
        )
    raise TokenizerError(
        f"{directory} has no tokenizer (tokenizer.json): download or export the model again"
    )


def _default(templates: str | dict[str, str] | None) -> str | None:
    """Of several named templates, the one called default, as in transformers and vLLM."""
    if not isinstance(templates, dict):
        return templates
    if "default" not in templates:
        raise TokenizerError(
            f"this model's chat templates are called {', '.join(sorted(templates))}, and none of "
            f"them default: save the one to serve as chat_template.jinja"
        )
    return templates["default"]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return raw


def _byte_table(backend: Any) -> dict[int, bytes]:
    spec = json.loads(backend.to_str())
    decoder = json.dumps(spec["decoder"])
    if "ByteLevel" in decoder:
        to_bytes = _byte_level
    elif "ByteFallback" in decoder:
        to_bytes = _byte_fallback
    else:
        raise TokenizerError(
            "this tokenizer is neither byte-level BPE nor SentencePiece with byte fallback: "
            "serve a model that has one of them"
        )
    added = {token["id"]: token for token in spec["added_tokens"]}
    table = {}
    for text, token_id in backend.get_vocab(with_added_tokens=True).items():
        token = added.get(token_id)
        if token is None:
            table[token_id] = to_bytes(text)
        elif not token["special"]:
            table[token_id] = token["content"].encode()
    return table


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins: a byte that prints is itself, the others start at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _byte_level(text: str) -> bytes:
    return bytes(_ALPHABET[character] for character in text)


def _byte_fallback(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are: `name` is what the engine loads, `directory` holds its configs."""

    name: str
    directory: Path

    @property
    def label(self) -> str:
        """What clients call the model: the hub's name for it, or its directory's."""
        return Path(self.name).resolve().name if Path(self.name).is_dir() else self.name

    @property
    def model_type(self) -> str:
        """The `model_type` of config.json; empty where it has none."""
        return str(_read_json(self.directory / "config.json").get("model_type", ""))

    @classmethod
    def find(cls, name: str) -> ModelFiles:
        """The files of a local directory, or the small files of a hub model, downloaded.

        Raises `FileNotFoundError` where there is neither.
        """
        path = Path(name).expanduser()
        if path.is_dir():
            if not (path / "config.json").exists():
                raise FileNotFoundError(f"{path} has no config.json: name a model directory")
            return cls(str(path), path)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        try:
            directory = snapshot_download(
                name, allow_patterns=["*.json", "*.jinja", "*.model", "*.txt"]
            )
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise FileNotFoundError(
                f"{name!r} is neither a directory nor a model that the hub provides: {error}"
            ) from error
        return cls(name, Path(directory))
