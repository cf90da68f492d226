"""Self-Instruct (Wang et al. 2022, arXiv 2212.10560): new tasks, with inputs and answers, from hand-written seeds.

In rounds, the steps of its section 2.2: instructions, of those shown a quarter the model's own; instances, for
classification the output first; filtering. As in Alpaca (Taori et al. 2023), one request asks for several whole tasks,
instance and all; a field for the label keeps the paper's order. ROUGE-L is by characters, so that writing without
spaces works; by words 0.7 is stricter. What a teacher writes here follows from no evidence: its form is checked, its
truth is not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rapidfuzz import process
from rapidfuzz.distance import Indel

from tasks.core.records import Example, Origin, Seed
from tasks.corpus.construct.method import Method, Problem, mentioned, unclean
from tasks.corpus.teacher.teacher import Reply

FIELDS = ("instruction", "label", "input", "output")  # of a task: its output is its label, where it has one
ROUND = 16  # requests, after which the pool has grown; a constant, for it shapes what is built
NEW_PER_PROMPT = 4
OWN_SHARE = 0.25  # of the instructions shown: the model's own
MIN_INSTRUCTION, MAX_INSTRUCTION = 5, 400  # characters


@dataclass
class TaskPool:
    """Every instruction there is, and the tasks that may be shown: seeds, and the teacher's own."""

    seeds: list[Seed]
    known: list[str]
    own: list[Seed] = field(default_factory=list)

    def nearest(self, instruction: str, at_least: float) -> tuple[str, float] | None:
        """The most similar instruction and its ROUGE-L F1 (Lin 2004, eq. 2 to 4), where it exceeds `at_least`."""
        found = process.extractOne(instruction, self.known, scorer=Indel.normalized_similarity, score_cutoff=at_least)
        return (found[0], found[1]) if found and found[1] > at_least else None

    def shown(self, count: int, rng: random.Random) -> list[Seed]:
        """`count` tasks, mostly seeds, in any order."""
        own = rng.sample(self.own, min(len(self.own), int(count * OWN_SHARE)))
        chosen = own + rng.sample(self.seeds, min(len(self.seeds), count - len(own)))
        rng.shuffle(chosen)
        return chosen


@dataclass(kw_only=True)
class SelfInstruct(Method):
    """The method. `title` is the domain's subject, in its language."""

    origin: ClassVar[Origin] = "self_instruct"
    title: str

    def build(self, seeds: Sequence[Seed], others: Iterable[str]) -> None:
        """As many new examples as wanted, or as the requests and the budget give; none like `others`, none padded."""
        pool = TaskPool(list(seeds), [*(seed.instruction for seed in seeds), *others])
        rng, settings = random.Random(self.params.seed), self.params.construct_.self_instruct
        while self.teacher and not self.teacher.exhausted:
            missing = settings.examples - len(self.examples)
            requests = min(ROUND, settings.max_requests - self.usage.requests, -(-missing // NEW_PER_PROMPT))
            if requests < 1:
                break
            shown = [pool.shown(settings.seeds_per_prompt, rng) for _ in range(requests)]
            asked = [[self._prompt(part)] for part in shown]
            replies = self.ask(asked, "tasks", FIELDS, NEW_PER_PROMPT, sample=self.teacher.usage.requests)
            for part, reply in zip(shown, replies, strict=True):
                source = tuple(seed.id for seed in part)
                for fields in self.items(reply, FIELDS, NEW_PER_PROMPT, source):
                    self._judge(fields, source, reply, pool)

    def _prompt(self, seeds: Sequence[Seed]) -> str:
        shown = []
        for seed in seeds:
            label, output = (seed.output, "") if seed.classification else ("", seed.output)
            shown.append(dict(zip(FIELDS, (seed.instruction, label, seed.input, output), strict=True)))
        return self.prompts.self_instruct.format(
            title=self.title,
            tasks=json.dumps({"items": shown}, ensure_ascii=False),
            number=NEW_PER_PROMPT,
            language=self.prompts.language,
        )

    def _judge(self, fields: dict[str, str], source: tuple[str, ...], reply: Reply, pool: TaskPool) -> None:
        none = self.prompts.none.casefold()
        instruction, label, entered, output = (
            "" if text.rstrip(".。").casefold() == none else text for text in fields.values()
        )
        example = self.candidate(instruction, label or output, source, input=entered)
        if problem := self._instruction_problem(instruction):
            self.drop(example, *problem)
        elif found := pool.nearest(instruction, self.params.construct_.self_instruct.max_similarity):
            self.drop(example, "not novel", f"ROUGE-L {found[1]:.2f} to: {found[0]}", found[1])
        elif problem := self._instance_problem(example, reply):
            self.drop(example, *problem)
        elif len(self.examples) == self.params.construct_.self_instruct.examples:
            self.drop(example, "not needed", "enough examples")
        else:
            pool.known.append(instruction)
            self.keep(example, "classification" if label else "")
            texts = example.model_dump(include={"id", "instruction", "input", "output"})
            pool.own.append(Seed(**texts, classification=bool(label)))

    def _instruction_problem(self, instruction: str) -> Problem | None:
        if not MIN_INSTRUCTION <= len(instruction) <= MAX_INSTRUCTION:
            return Problem("instruction too short or too long", f"{len(instruction)} characters")
        if not instruction[0].isalnum() and instruction[0] not in "\"'“‘«《「『(（¿¡":
            return Problem("instruction begins with a mark", instruction[0])
        if word := mentioned(instruction, self.prompts.unfit):
            return Problem("not a task for text alone", word)
        return unclean(instruction)

    def _instance_problem(self, example: Example, reply: Reply) -> Problem | None:
        if problem := self.text_problem(reply, example.output):
            return problem
        answer = " ".join(example.output.split()).casefold()
        if answer in (" ".join(example.input.split()).casefold(), " ".join(example.instruction.split()).casefold()):
            return Problem("output repeats what was asked")
        return unclean(example.input)
