"""Which training rows an answer owes most to, and which pulled against it, of those with the likest questions."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

from flywheel.leave_one_out import NotAsked, passages_of
from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import Example, read_own_jsonl
from tasks.store.schema import AnswerRow
from tasks.text.passages import ask_from, domain_words

ASKED, SHOWN = 60, 5


def rows_behind(answer: AnswerRow) -> list[dict[str, Any]]:
    """The training rows of models/package that pulled most at an answer it gave, SHOWN either way; see influence.py.

    Asked are the ASKED rows with the likest questions, at the weights of the version itself. Takes a minute or two.

    Raises:
        NotAsked: the answer is another version's than the one in models/package, or that has no adapter.
    """
    from tasks.evaluate.influence import kinds_of, load_trainable, pulls, refusals
    from tasks.evaluate.scoring.subject import load_subject
    from tasks.text.prompts import encode_answer, encode_text, render

    version = load_subject("candidate")
    if version.digest != answer.digest or version.adapter is None:
        raise NotAsked(
            f"version {answer.version} gave {answer.id}, and models/package is another, or has no adapter: check out "
            "the commit that `flywheel trace` names, then `dvc checkout`"
        )
    *earlier, last = answer.messages
    words, shown = domain_words(load_domain(load_params().domain)), last["content"]
    if answer.passages is not None:
        shown = ask_from(passages_of(answer), shown, words)
    model, tokenizer = load_trainable(version.base, version.adapter)
    prompt = encode_text(tokenizer, render(tokenizer, [*earlier, {"role": "user", "content": shown}]))
    examples = nearest(read_own_jsonl(layout.MIX / "train.jsonl", Example), last["content"])
    said, kinds = encode_answer(tokenizer, answer.text), kinds_of(examples, refusals())
    found = pulls(model, tokenizer, version.system or "", [(prompt, said)], examples, kinds)[::-1]
    return [row.model_dump(mode="json") for row in [*found[:SHOWN], *found[SHOWN:][-SHOWN:]]]


def nearest(examples: list[Example], question: str) -> list[Example]:
    """The rows of the ASKED examples whose questions have most characters in common with one, in their order."""
    matcher = SequenceMatcher(None, b=question, autojunk=False)
    likeness: dict[str, float] = {}
    for one in examples:
        if one.id not in likeness:
            matcher.set_seq1(one.prompt)
            likeness[one.id] = matcher.ratio()
    kept = set(sorted(likeness, key=lambda key: (-likeness[key], key))[:ASKED])
    return [one for one in examples if one.id in kept]
