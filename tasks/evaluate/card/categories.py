"""The card's table of right answers by category: what was lost where, and the words that the lost questions share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_WORDS, MOST_QUESTIONS = 6, 10


def changed(verdict: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The categories of a verdict in which answers were lost or won, in its order; `items` are the domain's.

    Each with `questions`, the first MOST_QUESTIONS that lost their answers, and `words` that all of these share.
    """
    prompts = {str(item["id"]): str(item["prompt"]) for item in items}
    found = []
    for one in verdict.get("categories", []):
        questions = [prompts[key] for key in one["lost"] if key in prompts]
        if one["lost"] or one["won"]:
            shared = shared_words(questions, prompts.values())
            found.append({**one, "questions": questions[:MOST_QUESTIONS], "words": shared})
    return found


def shared_words(questions: Sequence[str], of: Iterable[str]) -> tuple[str, ...]:
    """The words of at least two and at least half of some questions, which less than half as large a share of the
    others in `of` have; the commonest first.
    """
    from tasks.knowledge.words import words_of

    lost, others = ([set(words_of(text)) for text in texts] for texts in (questions, set(of) - set(questions)))
    times, elsewhere = (Counter(word for words in texts for word in words) for texts in (lost, others))
    telling = [
        word
        for word, count in times.items()
        if count >= max(2, len(lost) / 2) and count / len(lost) > 2 * elsewhere[word] / max(1, len(others))
    ]
    return tuple(sorted(telling, key=lambda word: (-times[word], elsewhere[word], word))[:MOST_WORDS])
