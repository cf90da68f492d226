"""What is asked of a night about corrections: those it learns, and what learning them may not change.

Editing a model is judged by three things (Yao et al. 2023, "Editing Large Language Models"): that the correction is
answered, that it is in other words too, and that what lies beside it stays. So a correction is asked in the other words
that its author gave, which are never trained on, and in its own where there are none; and what champions learnt before
and the entries nearest to tonight's corrections are asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.core.records import EvaluationItem, Example, make_item
from tasks.knowledge.words import words_of
from tasks.similarity.embedder import Embeddings

EARLIER, NEIGHBOUR = "earlier correction", "beside a correction"
MOST_EARLIER = 40
MOST_BESIDE = 120  # of 40 with one that lost a figure the gate could not show that a tenth is not lost


def correction_items(
    corrections: Sequence[Example], other_words: Mapping[str, str], trained: Sequence[Example]
) -> list[EvaluationItem]:
    """Each correction once, after its turns and under its system text; what was trained on stands in `paraphrases`.

    `other_words`: id of a correction → a wording that its author gave; a question of `trained` is none.
    """
    known = {tuple(words_of(one.prompt)) for one in trained}
    items = []
    for one in corrections:
        wording = other_words.get(one.id, "")
        if not wording or tuple(words_of(wording)) in known:
            items.append(_item("feedback", one, one.category))
        else:
            items.append(_item("feedback", one, one.category, prompt=wording, paraphrases=(one.prompt,)))
    return _once(items)


def kept_items(earlier: Sequence[Example], neighbours: Sequence[Example]) -> list[EvaluationItem]:
    """What was learnt before and what lies beside the new corrections, with the answers that were trained on."""
    groups = {EARLIER: earlier, NEIGHBOUR: neighbours}
    return _once([_item("kept", one, name) for name, group in groups.items() for one in group])


def nearest(embeddings: Embeddings, corrections: Sequence[str], others: Sequence[str], same: float) -> list[str]:
    """The ids of `others` whose questions are nearest to a correction's, MOST_BESIDE at most, the nearest first.

    From the cosine `same` on a question asks the same in other words: its answer is what was corrected.
    """
    if not corrections or not others:
        return []
    (new, _), (old, _) = embeddings.rows(corrections), embeddings.rows(others)
    closeness = (old @ new.T).max(axis=1)
    order = np.lexsort((np.array(others), -closeness))
    return [others[place] for place in order if closeness[place] < same][:MOST_BESIDE]


def _item(name: str, example: Example, category: str, **asked: Any) -> EvaluationItem:
    fields = {field: getattr(example, field) for field in ("prompt", "source", "system", "history")}
    return make_item(set=name, reference=example.output, category=category, **fields | asked)


def _once(items: Sequence[EvaluationItem]) -> list[EvaluationItem]:
    return list({item.id: item for item in items}.values())
