"""The one place where text becomes what the model reads: training, evaluation, sizing and serving all come here.

A tokenizer is transformers' own or a PromptBook; both have their chat template rendered here, byte for byte as
transformers does. The answer is tokenised apart from the prompt and ends with the end-of-turn token. Limits: no tools,
documents or images; a marker that a template writes as several ordinary tokens can be typed by anybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import sha256_bytes
from tasks.core.records import Message, Preference, Turn
from tasks.text.passages import asked

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import AddedToken, Tokenizer

    from tasks.core.records import Example


# A piece of a template's text that only stands for itself: longer than a sign or two, and no plain word.
_MARKER = re.compile(r"(?=.*[^\w\s]).{3,}", re.DOTALL)


class PromptError(FlywheelError):
    """A text cannot be rendered or encoded as asked."""


class TokenizerMissing(FlywheelError):
    """The base model's tokenizer is not where it should be."""


def messages_of(system: str, user: str, history: tuple[Any, ...] = ()) -> list[dict[str, str]]:
    """Chat messages: the system prompt (left out when empty), the earlier turns, then the user's."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in history:
        messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.assistant}]
    return [*messages, {"role": "user", "content": user}]


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, begin_answer: bool = True) -> str:
    """The chat template on messages, the answer begun if asked. Raises PromptError: none, broken, or refused."""
    from jinja2 import TemplateError, TemplateSyntaxError

    if not (template := _template_of(tokenizer)):
        named = " named 'default'" if tokenizer.chat_template else ""
        raise PromptError(
            f"the tokenizer has no chat template{named}; name one in base_model.chat_template of domain.yaml"
        )
    try:
        return _compiled(template).render(
            messages=list(messages),
            tools=None,
            documents=None,
            add_generation_prompt=begin_answer,
            **tokenizer.special_tokens_map,
        )
    except TemplateSyntaxError as fault:
        raise PromptError(f"the chat template is broken in line {fault.lineno}: {fault.message}") from None
    except TemplateError as fault:
        raise PromptError(f"the chat template refuses this conversation: {fault.message}") from None
    except Exception as fault:  # a template is a program: whatever it does not foresee ends as an error of its own
        raise PromptError(f"the chat template fails on this conversation: {type(fault).__name__}: {fault}") from None


def _template_of(tokenizer: Any) -> str:
    template = tokenizer.chat_template
    return str((template.get("default") if isinstance(template, dict) else template) or "")


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    """The template with everything that transformers lets one use."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag around what the assistant says; it writes what it holds."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

        def _write(self, caller: Any) -> Any:
            return caller()

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = as_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment.from_string(template)


def smuggled_markers(tokenizer: Any, text: str) -> list[str]:
    """What stands in `text` as plain characters and only the template may write, e.g. `<|im_start|>`."""
    return list(dict.fromkeys(any_of(markers_of(tokenizer)).findall(text)))


@lru_cache(maxsize=8)
def any_of(markers: tuple[str, ...]) -> re.Pattern[str]:
    """Finds each of them, the longest first; in one pass, because a model may have thousands."""
    longest_first = sorted(markers, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def markers_of(tokenizer: Any) -> tuple[str, ...]:
    """All special tokens, named or not, and what the template writes that the tokenizer reads as one added token."""
    return _markers(tokenizer, _template_of(tokenizer))


@lru_cache(maxsize=4)
def _markers(tokenizer: Any, template: str) -> tuple[str, ...]:
    added: Iterable[AddedToken] = tokenizer.added_tokens_decoder.values()
    special = [token.content for token in added if token.special]
    others = [token.content for token in added if not token.special and _MARKER.fullmatch(token.content)]
    written = _written(tokenizer, template) if others else ""
    return tuple(
        dict.fromkeys([*tokenizer.all_special_tokens, *special, *(text for text in others if text in written)])
    )


def _written(tokenizer: Any, template: str) -> str:
    """All that a chat template writes of its own: its literal texts, and what it puts together for each role."""
    from jinja2 import nodes

    tree = _compiled(template).environment.parse(template)
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    texts += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    turns = [{"role": role, "content": "?"} for role in ("system", "user", "assistant", "user")]
    for messages in (turns, turns[1:]):
        try:
            texts.append(render(tokenizer, messages))
        except PromptError:
            continue  # a template without a system role; whoever asks for one is told
    return "\0".join(texts)


def render_prompt(tokenizer: Any, system: str, user: str, history: tuple[Any, ...] = ()) -> str:
    """The prompt as text, ending where the assistant's answer begins.

    Raises PromptError: the template refuses it, or a part of it holds a marker, so a reader could forge a role.
    """
    messages = messages_of(system, user, history)
    for message in messages:
        if found := smuggled_markers(tokenizer, message["content"]):
            raise PromptError(f"the {message['role']} text holds the special token {found[0]!r}")
    return render(tokenizer, messages)


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered text; nothing is added to it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Token ids of an answer, with the end-of-turn token behind it. Raises PromptError: it holds a marker."""
    if found := smuggled_markers(tokenizer, answer):
        raise PromptError(f"the answer holds the special token {found[0]!r}")
    return [*encode_text(tokenizer, answer), tokenizer.eos_token_id]


def encode_example(tokenizer: Any, system: str, example: Example, max_tokens: int) -> tuple[list[int], list[int]]:
    """Token ids of an example's prompt and of its answer.

    Raises PromptError: names the example. It cannot be rendered or encoded, or the two together are longer than
    `max_tokens`; nothing is cut in silence.
    """
    try:
        prompt = render_prompt(tokenizer, example.system or system, asked(example), example.history)
        prompt_ids, answer_ids = encode_text(tokenizer, prompt), encode_answer(tokenizer, example.output)
    except PromptError as fault:
        raise PromptError(f"example {example.id[:12]}: {fault}") from None
    if len(prompt_ids) + len(answer_ids) > max_tokens:
        length = len(prompt_ids) + len(answer_ids)
        raise PromptError(f"example {example.id[:12]} has {length} tokens, more than {max_tokens}")
    return prompt_ids, answer_ids


class PromptBook:
    """A model's tokenizer and chat template from its files alone, wherever a tokenizer is asked for; safe for threads.

    For the gateway, which must start in a second and count thousands of prompts a minute, and for sizing: transformers
    takes eight seconds and 300 MB to import.
    """

    def __init__(self, folder: Path) -> None:
        """Reads tokenizer_config.json, and the tokenizer at the first use; raises TokenizerMissing."""
        self.folder = folder
        try:
            self._config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise TokenizerMissing(
                f"{layout.BASE_MODEL} holds no tokenizer; build it: .venv/bin/dvc repro base_model"
            ) from None

    @cached_property
    def chat_template(self) -> str | dict[str, str]:
        """The chat template as it was written, or several by name."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        found = self._config.get("chat_template") or ""
        return {named["name"]: named["template"] for named in found} if isinstance(found, list) else found

    @cached_property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens that have a name, e.g. `bos_token`, as a template may use them."""
        extra = self._config.get("extra_special_tokens")
        own = self._config.get("model_specific_special_tokens") or (extra if isinstance(extra, dict) else {})
        named = {name: value for name, value in self._config.items() if name.endswith("_token")} | own
        return {name: _content(value) for name, value in named.items() if isinstance(value, str | dict)}

    @cached_property
    def all_special_tokens(self) -> list[str]:
        """The special tokens that have a name, and those named together, as plain text."""
        extra = self._config.get("extra_special_tokens") or self._config.get("additional_special_tokens") or []
        others = [] if isinstance(extra, dict) else [_content(value) for value in extra]
        return list(dict.fromkeys([*self.special_tokens_map.values(), *others]))

    @cached_property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that were added to the vocabulary, by id: those that no text is ever split within."""
        return dict(self.backend_tokenizer.get_added_tokens_decoder())

    @cached_property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer in tokenizer.json, which cuts and pads nothing here."""
        from tokenizers import Tokenizer

        found = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        found.no_truncation()
        found.no_padding()
        return found

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token: a text of N characters has at least N / longest_token tokens."""
        return max(len(token) for token in self.backend_tokenizer.get_vocab())

    def ids(self, text: str) -> list[int]:
        """The tokens of a rendered text; nothing is added to it."""
        return list(self.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    def count(self, text: str) -> int:
        """How many tokens a rendered text has."""
        return len(self.ids(text))

    def at_least(self, text: str) -> int:
        """A lower bound on the tokens of a text, without tokenising it."""
        return len(text) // self.longest_token

    def warm(self) -> None:
        """Load everything, so that the first request is not slower than the others."""
        self.count(render(self, messages_of("", "?")))
        smuggled_markers(self, "")
        self.at_least("")


def _content(value: Any) -> str:
    return str(value["content"] if isinstance(value, dict) else value)


def prompt_sha256(prompt: str) -> str:
    """What an answer's row keeps of its rendered prompt."""
    return sha256_bytes(prompt.encode())


def encode_preference(
    tokenizer: Any, system: str, preference: Preference, max_tokens: int
) -> tuple[list[int], list[int], list[int]]:
    """Token ids of a preference's prompt, of the chosen answer and of the rejected one.

    Raises PromptError: it is longer than `max_tokens` with either, holds a special token, both answers have the same
    tokens, or the prompt does not end with the user.
    """
    prompt = encode_prompt(tokenizer, system, preference.prompt)
    chosen, rejected = (encode_answer(tokenizer, text) for text in (preference.chosen, preference.rejected))
    if (extra := len(prompt) + max(len(chosen), len(rejected)) - max_tokens) > 0:
        raise PromptError(f"it is {extra} tokens longer than max_tokens allows")
    if chosen == rejected:
        raise PromptError("both answers are the same tokens")
    return prompt, chosen, rejected


def encode_prompt(tokenizer: Any, system: str, messages: Sequence[Message]) -> list[int]:
    """Token ids up to where the answer begins. Raises PromptError: after a system message, turns do not alternate."""
    if messages and messages[0].role == "system":
        system, messages = messages[0].content, messages[1:]
    expected = ["user" if place % 2 == 0 else "assistant" for place in range(len(messages))]
    if [message.role for message in messages] != expected or len(messages) % 2 == 0:
        raise PromptError("a preference's prompt has to be user and assistant in turn, and to end with the user")
    turns = [Turn(user=messages[i].content, assistant=messages[i + 1].content) for i in range(0, len(messages) - 1, 2)]
    return encode_text(tokenizer, render_prompt(tokenizer, system, messages[-1].content, tuple(turns)))
