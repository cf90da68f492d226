"""What a teacher may cost, in tokens and in money, decided so that a rerun stops at the same request.

A request is let through when everything before it, as it really was, and the most it can cost itself stay within the
limits. Replies from the cache count like fresh ones: the limit is on what a run uses, so neither the cache nor the
order in which replies arrive changes what is built. What a rerun pays is less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tasks.core.params import TeacherParams
from tasks.corpus.teacher.cache import Ask, Reply

MILLION = 1_000_000
# Tokens that a server may put around the messages: its template, and a system prompt of its own.
TEMPLATE_TOKENS = 64
MESSAGE_TOKENS = 8


class Spending(NamedTuple):
    """Tokens asked and tokens answered."""

    prompt: int = 0
    completion: int = 0

    def plus(self, other: Spending) -> Spending:
        """Both together."""
        return Spending(self.prompt + other.prompt, self.completion + other.completion)

    @property
    def tokens(self) -> int:
        """Asked and answered together."""
        return self.prompt + self.completion


class Usage(NamedTuple):
    """Requests, how many of them were answered, and what they cost when they were asked, now or for an earlier run."""

    requests: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def since(self, before: Usage) -> Usage:
        """What has come to it since then."""
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))


def spent_on(reply: Reply) -> Spending:
    """What a reply cost when it was asked."""
    return Spending(reply.prompt_tokens, reply.completion_tokens)


def most_of(ask: Ask) -> Spending:
    """The most a request can cost: no tokenizer makes more tokens of a text than it has bytes."""
    text = sum(len(message.content.encode()) + MESSAGE_TOKENS for message in ask.messages)
    return Spending(text + TEMPLATE_TOKENS, ask.max_tokens)


@dataclass(frozen=True)
class Budget:
    """Limits in tokens and in money; `cost` 0 sets no limit in money, prices are a million tokens."""

    tokens: int
    cost: float
    price_input: float
    price_output: float

    @classmethod
    def of(cls, settings: TeacherParams) -> Budget:
        """The limits that params.yaml sets."""
        return cls(settings.budget_tokens, settings.budget_cost, settings.price_input, settings.price_output)

    def cost_of(self, spending: Spending) -> float:
        """In the currency of the prices."""
        return (spending.prompt * self.price_input + spending.completion * self.price_output) / MILLION

    def allows(self, spending: Spending) -> bool:
        """Whether so much may be spent in all."""
        return spending.tokens <= self.tokens and (not self.cost or self.cost_of(spending) <= self.cost)
