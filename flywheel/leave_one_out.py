"""Which passages an answer depends on: asked again without each of them, does the model still say the same?"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.records import Passage
from tasks.engine.client import Engine, adapter_name
from tasks.store.schema import AnswerRow
from tasks.text.passages import AnsweringWords, ask_from, uncited

EXCERPT = 200  # characters of what is said instead
SAME = 0.9  # likeness of two answers, of 1, from which they say the same


class NotAsked(FlywheelError):
    """An answer cannot be asked for again."""


def passages_of(answer: AnswerRow) -> list[Passage]:
    """What an answer was given from, without what search made of it; [] where nothing was."""
    return [Passage.model_validate({k: v for k, v in one.items() if k != "score"}) for one in answer.passages or ()]


def leave_one_out(
    engine: Engine, answer: AnswerRow, words: AnsweringWords, limit: int, decoding: Mapping[str, float]
) -> list[dict[str, Any]]:
    """For each passage, by its number: whether the answer depends on it, and what is said without it.

    All are greedy answers of `limit` tokens at most, compared with the one from all passages, given anew: the stored
    one may have been sampled. Citations are not compared, since numbers shift.

    Raises:
        NotAsked: it was given from no passages, or the engine holds its version no longer.
        EngineError: the engine does not answer.
    """
    passages = passages_of(answer)
    model = adapter_name(answer.digest)
    if not passages:
        raise NotAsked(f"{answer.id} was given from no passages: there is none to leave out")
    if model not in engine.models():
        raise NotAsked(f"the engine does not hold version {answer.version} any more; promote it, and try again")
    *earlier, last = answer.messages

    def asked(shown: list[Passage]) -> str:
        message = {"role": "user", "content": ask_from(shown, last["content"], words)}
        return uncited(engine.chat(model, [*earlier, message], limit, decoding))

    whole = asked(passages)
    found = []
    for place in range(len(passages)):
        without = asked(passages[:place] + passages[place + 1 :])
        likeness = SequenceMatcher(None, whole, without, autojunk=False).ratio()
        found.append(
            {"number": place + 1, "depends": likeness < SAME, "likeness": round(likeness, 3), "says": without[:EXCERPT]}
        )
    return found
