"""What a model's own files say of it, where domain.yaml does not: licence, pad token, end of turn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tasks.core.base_model import BaseModelSource
from tasks.core.records import Turn
from tasks.text.parity import first_difference
from tasks.text.prompts import PromptError, markers_of, messages_of, render
from tasks.train.base_model.folder import BaseModelError

LICENCE_FILES = ("LICENSE", "LICENSE.*", "LICENCE", "LICENCE.*")
# By how a licence's text begins; another one goes by its first line.
LICENCES = {
    "Apache License": ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "MIT License": ("MIT", "https://opensource.org/license/mit"),
}
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
# Tokens of known vocabularies that no text holds and no turn ends with, the likeliest first.
PADDING = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", "<|pad|>", "[PAD]", "<unk>")
ANSWER = "Good day."


def licence_file(folder: Path) -> Path | None:
    """The file with the licence's text."""
    return next((path for pattern in LICENCE_FILES for path in sorted(folder.glob(pattern)) if path.is_file()), None)


def licence_of(folder: Path, source: BaseModelSource) -> dict[str, str]:
    """Licence and its address: domain.yaml's, the README's or the licence file's own.

    Raises BaseModelError: nothing says it, and which line would.
    """
    card = _front_matter(folder)
    licence = str(card.get("license_name") or card.get("license") or "")
    link = str(card.get("license_link") or "")
    if (file := licence_file(folder)) and licence in ("", "other"):
        first = next((line.strip() for line in file.read_text("utf-8", "replace").splitlines() if line.strip()), "")
        licence, link = LICENCES.get(first, (first[:80], link))
    licence = source.licence or ("" if licence == "other" else licence)
    if not licence:
        raise BaseModelError(
            f"{source.name} says nowhere under which licence it may be used (README.md, LICENSE): read it where "
            "you had the model from, and write `licence: ITS NAME` under base_model in domain.yaml"
        )
    if not link.startswith("https://"):
        link = f"https://huggingface.co/{source.hub}" if source.hub else ""
    return {"licence": licence, "licence_url": source.licence_url or link}


def _front_matter(folder: Path) -> dict[str, Any]:
    path = folder / "README.md"
    found = FRONT_MATTER.match(path.read_text("utf-8", "replace")) if path.is_file() else None
    try:
        value = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def pad_token_of(tokenizer: Any, source: BaseModelSource) -> str:
    """The token to pad with: domain.yaml's, the model's own, or one of its vocabulary that nothing else uses.

    Raises BaseModelError: there is none but the end of a turn, and which line to write.
    """
    own, end, vocabulary = tokenizer.pad_token, tokenizer.eos_token, tokenizer.get_vocab()
    candidates = (source.pad_token, own, *PADDING)
    for token in candidates:
        if token and (token == source.pad_token or (token in vocabulary and token != end)):
            return str(token)
    raise BaseModelError(
        f"{source.name} has no padding token of its own: write `pad_token: TOKEN` under base_model in domain.yaml, "
        f"with a token of its vocabulary that no text holds, and never {end}, which ends turns"
    )


def own_end_of_turn(tokenizer: Any, name: str) -> None:
    """Hold for the end of a turn what the template writes behind an answer, such as <end_of_turn> or <|end|>.

    Models of which the tokenizer names the end of a text instead would otherwise be trained to end otherwise than
    their template. Raises BaseModelError: the template writes no single token there.
    """
    written = render(tokenizer, messages_of("", "?", (Turn(user="?", assistant=ANSWER),)), begin_answer=False)
    behind = written.partition(ANSWER)[2]
    ends = sorted((mark for mark in markers_of(tokenizer) if behind.startswith(mark)), key=len, reverse=True)
    if not ends:
        raise BaseModelError(
            f"the chat template of {name} ends an answer with no token of its own ({behind[:20]!r} follows); "
            "write `chat_template: chatml` or a file of the domain's folder under base_model"
        )
    if ends[0] != tokenizer.eos_token:
        tokenizer.eos_token = ends[0]


def refuse_other_answers(tokenizer: Any, system: str, name: str) -> None:
    """Raise BaseModelError where the template writes an earlier answer otherwise than answers are trained.

    Training and serving put an answer's tokens straight behind the prompt; a later turn must find the same there.
    """
    asked = messages_of(system, "?")
    later = [*asked, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": "And?"}]
    try:
        trained = render(tokenizer, asked) + ANSWER + tokenizer.eos_token
        written = render(tokenizer, later, begin_answer=False)
    except PromptError as fault:
        raise BaseModelError(f"{name}: {fault}") from None
    if not written.startswith(trained):
        raise BaseModelError(
            f"the chat template of {name} writes an answer of an earlier turn otherwise than it begins one: "
            f"{first_difference(trained, written)}; write `chat_template: chatml` or a file of the domain's folder "
            "under base_model"
        )
