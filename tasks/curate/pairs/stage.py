"""Stage `pairs`: preferences between two answers, judged, kept clear of evaluation items, and split by prompt.

They come from choices between drafts and from what the domain ships (rows.py). A pair that fails the suite
`preference`, could not be encoded, or resembles an evaluation item is laid aside with its reason. A night that goes on
from a champion learns what is new, and as many of the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.files import digest_of, fresh_directory, write_manifest
from tasks.core.params import Params, load_params
from tasks.core.pointers import goes_on
from tasks.core.records import BadLine, Example, Preference, Receipt, make_example, read_own_jsonl, write_jsonl
from tasks.core.stage import run_stage
from tasks.curate.pairs.rows import NAME, shipped_preferences
from tasks.curate.quality.suite import Checker, Outcome, frame, parameters, row_of
from tasks.curate.validate.stage import SuiteFailed, check_outcomes
from tasks.similarity.embedder import Embeddings, embed_texts, evaluation_items, question_text, whole_text
from tasks.similarity.leaks import Leak, LeakGuard, leak_guard
from tasks.text.prompts import PromptError, encode_preference

STAGE = "pairs"
SUITE = "preference"


def read_preferences(domain: Domain, bad: list[BadLine], unused: Counter[str]) -> list[Preference]:
    """What people chose, then what the domain ships; a repeat counts once. `bad` and `unused` as in read_shipped."""
    chosen = layout.FEEDBACK / NAME
    found = read_own_jsonl(chosen, Preference) if chosen.is_file() else []
    found += shipped_preferences(domain, bad, unused)
    return list({one.id: one for one in found}.values())


def failing(preferences: Sequence[Preference], params: Params, domain: Domain) -> dict[str, str]:
    """Id → reason of each preference that fails its suite, or that could not be encoded for training.

    Raises SuiteFailed: of those that the domain ships, more fail than `validate.max_failing_share` allows.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
    outcome = Outcome(SUITE)
    rows = [row_of(one) for one in preferences]
    checker = Checker(parameters(params, domain, tokenizer.all_special_tokens))
    found = outcome.add(checker.check(SUITE, frame(SUITE, rows)), rows)
    shipped = [one.id for one in preferences if not any(source.startswith("feedback:") for source in one.source)]
    named = {identity: found[identity] for identity in shipped if identity in found}
    counted = Outcome(SUITE, len(shipped), len(named), named)
    if problems := outcome.broken + check_outcomes([counted], params.validate_.max_failing_share):
        raise SuiteFailed("; ".join(problems))
    sound = [one for one in preferences if one.id not in found]
    return {key: failure.reason for key, failure in found.items()} | unencodable(sound, params, domain, tokenizer)


def unencodable(preferences: Sequence[Preference], params: Params, domain: Domain, tokenizer: Any) -> dict[str, str]:
    """Id → reason of each preference that training would have to lay aside."""
    longest = (params.reward if params.align.online else params.align).max_tokens
    found = {}
    for one in preferences:
        try:
            encode_preference(tokenizer, domain.system_text(), one, longest)
        except PromptError as error:
            found[one.id] = f"cannot be trained on: {error}"
    return found


def as_examples(preference: Preference, language: str) -> tuple[Example, ...]:
    """The prompt with either answer, as the leak guard reads it: all that was said before, and the last of it alone."""
    turns = [message.content for message in preference.prompt if message.role != "system"]
    return tuple(
        make_example(instruction=question, output=text, language=language, origin="human", source=preference.source)
        for question in dict.fromkeys(("\n".join(turns), turns[-1]))
        for text in (preference.chosen, preference.rejected)
    )


def leaking(preferences: Sequence[Preference], params: Params, domain: Domain) -> dict[str, Receipt]:
    """Id → receipt of each preference that resembles an evaluation item with one of its answers."""
    pairs = {one.id: as_examples(one, domain.language) for one in preferences}
    examples = list({example.id: example for pair in pairs.values() for example in pair}.values())
    found = dict(zip((example.id for example in examples), _guard(examples, params, domain), strict=True))
    receipts = {}
    for identity, pair in pairs.items():
        leak = next((leak for example in pair if (leak := found[example.id])), None)
        if leak:
            receipts[identity] = Receipt(
                example_id=identity, stage=STAGE, kept=False, reason=leak.reason, detail=leak.item.id, score=leak.score
            )
    return receipts


def _guard(examples: Sequence[Example], params: Params, domain: Domain) -> list[Leak | None]:
    """Where no model embeds but a fit to the texts does, the items are embedded again: two fits do not compare."""
    items = evaluation_items() if not domain.embedder.files else []
    texts = [(item.prompt, item.whole) for item in items] + [(question_text(e), whole_text(e)) for e in examples]
    vectors = embed_texts([text for part in zip(*texts, strict=True) for text in part], domain, params.embed)
    question, whole = vectors[: len(texts)], vectors[len(texts) :]
    guard = leak_guard(params, domain)
    if items:
        count = len(items)
        known = Embeddings([item.id for item in items], question[:count], whole[:count])
        guard = LeakGuard(items, known, guard.thresholds)
        question, whole = question[count:], whole[count:]
    return guard.check(examples, Embeddings([example.id for example in examples], question, whole))


def split(preferences: Sequence[Preference], share: float) -> tuple[list[Preference], list[Preference]]:
    """Training and validation preferences; the validation prompts are the first `share` in order of their hash."""
    digests = {one.prompt: digest_of([message.model_dump() for message in one.prompt]) for one in preferences}
    ordered = sorted(digests.values())
    held_out = set(ordered[: round(len(ordered) * share)])
    train = [one for one in preferences if digests[one.prompt] not in held_out]
    return train, [one for one in preferences if digests[one.prompt] in held_out]


def learnt_tonight(
    train: Sequence[Preference], validation: Sequence[Preference], new: set[str]
) -> tuple[list[Preference], list[Preference]]:
    """What a night learns: the new ones, none held out, and as many of the others, drawn afresh."""
    fresh = [one for one in (*train, *validation) if one.id in new]
    salt = digest_of(sorted(one.id for one in fresh))
    known = sorted((one.id for one in train if one.id not in new), key=lambda identity: digest_of([salt, identity]))
    replayed = set(known[: len(fresh)])
    learnt = fresh + [one for one in train if one.id in replayed]
    prompts = {one.prompt for one in learnt}
    return learnt, [one for one in validation if one.prompt not in prompts] if learnt else []


def pairs() -> str:
    """Write data/pairs; returns what happened, in a sentence."""
    params = load_params()
    domain = load_domain(params.domain)
    bad, unused = list[BadLine](), Counter[str]()
    read = read_preferences(domain, bad, unused) if params.align.alignment != "none" else []
    failed = failing(read, params, domain) if read else {}
    valid = [one for one in read if one.id not in failed]
    leaks = leaking(valid, params, domain) if valid else {}
    kept = [one for one in valid if one.id not in leaks]
    train, validation = split(kept, params.reward.validation_share)
    if kept and goes_on() and not params.align.online:  # a reward model is trained afresh, on all of them
        new = set(json.loads((layout.FEEDBACK / "new_preferences.json").read_text(encoding="utf-8")))
        train, validation = learnt_tonight(train, validation, new)
    failed |= {f"{line.file}:{line.line}": line.cause for line in bad}
    dropped = [Receipt(example_id=key, stage=STAGE, kept=False, reason=why) for key, why in sorted(failed.items())]
    with fresh_directory(layout.PAIRS) as folder:
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "validation.jsonl", validation)
        write_jsonl(folder / "dropped.jsonl", [*dropped, *leaks.values()])
        write_manifest(folder)
    if params.align.alignment == "none":
        return "none are read: align.alignment is none"
    unread = f"{len(bad)} cannot be read, " if bad else ""
    unmapped = "".join(f"; {name} is not read ({rows} rows)" for name, rows in unused.most_common())
    return (
        f"{len(train)} preferences to learn from, {len(validation)} held out, of {len(read) + len(bad)}: {unread}"
        f"{len(failed) - len(bad)} fail the suite, {len(leaks)} leak an evaluation item{unmapped}"
    )


if __name__ == "__main__":
    run_stage(STAGE, pairs)
