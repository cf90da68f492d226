"""Is a question the same tokens in evaluation as in training? The very line that OpenCompass is given is compared."""

from __future__ import annotations

from typing import Any

from tasks.core.records import make_item
from tasks.evaluate.run.opencompass_config import rows_of
from tasks.evaluate.scoring.questions import BOUNDARY, questions_of
from tasks.text.parity import CONVERSATIONS, Conversation, Reading, as_trained, refuse_differing
from tasks.text.prompts import encode_text


def check_prompts(tokenizer: Any, system: str) -> None:
    """Compare both sides on all conversations without earlier turns, which evaluation items have not.

    Raises PromptsDiffer: a token differs.
    """
    for conversation in CONVERSATIONS:
        if not conversation.history:
            trained = as_trained(tokenizer, system, conversation)
            refuse_differing([trained, as_evaluated(tokenizer, system, conversation)])


def as_evaluated(tokenizer: Any, system: str, conversation: Conversation) -> Reading:
    """As OpenCompass is sent a question about an answer's likelihood, and its model splits it again."""
    item = make_item(set="dialogue", prompt=conversation.user, reference=conversation.answer)
    line = rows_of(questions_of([item], tokenizer, system)[0])[0].text
    prompt, answer = line.split(BOUNDARY)
    ids = tuple(encode_text(tokenizer, prompt)), tuple(encode_text(tokenizer, answer))
    return Reading("evaluation", prompt, *ids)
