"""Self-Instruct (Wang et al. 2022, arXiv 2212.10560): new tasks, with inputs and answers, from hand-written seeds.

In rounds, the four steps of its section 2.2: instructions, of those shown a quarter the model's own; whether a task is
classification; instances, for classification the output first; filtering. ROUGE-L is by characters, so that writing
without spaces works; by words 0.7 is stricter. A task gets one instance. What a teacher writes here follows from no
evidence: its form is checked, its truth is not.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import ClassVar

from rapidfuzz import process
from rapidfuzz.distance import Indel

from tasks.core.records import Example, Origin, Seed
from tasks.corpus.construct.method import Method, Problem, items, mentioned, problem_with, unclean

ROUND = 16  # requests for instructions, after which the pool has grown; a constant, for it shapes what is built
NEW_PER_PROMPT = 4
OWN_SHARE = 0.25  # of the instructions shown: the model's own
SHOWN_KINDS = 3  # worked examples of each kind of task, in steps 2 and 3
MIN_INSTRUCTION, MAX_INSTRUCTION = 5, 400  # characters


@dataclass
class TaskPool:
    """Every instruction there is, and those that may be shown: seeds, and the teacher's own with their source."""

    seeds: list[Seed]
    known: list[str]
    own: list[tuple[str, str]] = field(default_factory=list)  # id of the example, instruction

    def nearest(self, instruction: str, at_least: float) -> tuple[str, float] | None:
        """The most similar instruction and its ROUGE-L F1 (Lin 2004, eq. 2 to 4), where it exceeds `at_least`."""
        found = process.extractOne(instruction, self.known, scorer=Indel.normalized_similarity, score_cutoff=at_least)
        return (found[0], found[1]) if found and found[1] > at_least else None

    def shown(self, count: int, rng: random.Random) -> list[tuple[str, str]]:
        """`count` instructions, with the ids of their examples: mostly seeds, in any order."""
        own = rng.sample(self.own, min(len(self.own), int(count * OWN_SHARE)))
        seeds = rng.sample(self.seeds, min(len(self.seeds), count - len(own)))
        chosen = own + [(seed.id, seed.instruction) for seed in seeds]
        rng.shuffle(chosen)
        return chosen


@dataclass(frozen=True)
class Task:
    """A new instruction, the ids of what was shown for it, and whether it asks for one of a few labels."""

    instruction: str
    shown: tuple[str, ...]
    classification: bool = False


@dataclass(kw_only=True)
class SelfInstruct(Method):
    """The method. `title` is the domain's subject, in its language."""

    origin: ClassVar[Origin] = "self_instruct"
    title: str

    def build(self, seeds: Sequence[Seed], others: Iterable[str]) -> None:
        """As many new examples as wanted, or as the requests and the budget give; none like `others`, none padded."""
        pool = TaskPool(list(seeds), [*(seed.instruction for seed in seeds), *others])
        rng, settings = random.Random(self.params.seed), self.params.construct_.self_instruct
        waiting: list[Task] = []
        while len(self.examples) < settings.examples and self.teacher and not self.teacher.exhausted:
            left = settings.max_requests - self.usage.requests
            if not waiting:
                # Each instruction takes two requests more, so a round begins only where they are left.
                if left < 3:
                    break
                waiting = self._instructions(min(ROUND, left // 3), pool, rng)
                continue
            if left < 2:
                break
            take = min(settings.examples - len(self.examples), left // 2)
            now, waiting = waiting[:take], waiting[take:]
            self._instances(self._classified(now, seeds), pool)
        for task in waiting:
            self.drop(self._example(task), "not answered", "enough examples, or no requests left")

    def _instructions(self, prompts: int, pool: TaskPool, rng: random.Random) -> list[Task]:
        shown = [pool.shown(self.params.construct_.self_instruct.seeds_per_prompt, rng) for _ in range(prompts)]
        asked = [[self._list_prompt([text for _, text in part])] for part in shown]
        tasks: list[Task] = []
        replies = self.ask(asked, "instructions", sample=self.teacher.usage.requests if self.teacher else 0)
        for part, reply in zip(shown, replies, strict=True):
            sources = tuple(identity for identity, _ in part)
            whole = self._example(Task("", sources), output=reply.text)
            problem = problem_with(reply, self.prompts)
            if problem and problem.reason != "cut short":
                self.drop(whole, f"tasks: {problem.reason}", problem.detail)
                continue
            lines = items(reply.text, marked_only=True)
            # The last line of a reply that was cut is not whole.
            lines = (lines[:-1] if problem else lines)[:NEW_PER_PROMPT]
            if not lines:
                self.drop(whole, "no task in the reply")
            tasks += [Task(line, sources) for line in lines if self._is_new(Task(line, sources), pool)]
        return tasks

    def _list_prompt(self, instructions: list[str]) -> str:
        listed = "\n".join(f"{n}. {' '.join(text.split())}" for n, text in enumerate(instructions, start=1))
        return self.prompts.self_instruct.instructions.format(
            title=self.title,
            tasks=listed,
            number=NEW_PER_PROMPT,
            next=len(instructions) + 1,
            language=self.prompts.language,
        )

    def _is_new(self, task: Task, pool: TaskPool) -> bool:
        if problem := self._instruction_problem(task.instruction):
            self.drop(self._example(task), *problem)
            return False
        if found := pool.nearest(task.instruction, self.params.construct_.self_instruct.max_similarity):
            self.drop(self._example(task), "not novel", f"ROUGE-L {found[1]:.2f} to: {found[0]}", found[1])
            return False
        pool.known.append(task.instruction)
        return True

    def _instruction_problem(self, instruction: str) -> Problem | None:
        if not MIN_INSTRUCTION <= len(instruction) <= MAX_INSTRUCTION:
            return Problem("instruction too short or too long", f"{len(instruction)} characters")
        if not instruction[0].isalnum() and instruction[0] not in "\"'“‘«《「『(（¿¡":
            return Problem("instruction begins with a mark", instruction[0])
        if word := mentioned(instruction, self.prompts.unfit):
            return Problem("not a task for text alone", word)
        return unclean(instruction)

    def _classified(self, tasks: Sequence[Task], seeds: Sequence[Seed]) -> list[Task]:
        """Step 2: which tasks ask for a label. An unreadable reply counts as no: most tasks are none."""
        words = self.prompts.self_instruct
        texts: list[str] = []
        for seed in filter(None, chain(*zip_longest(*_by_kind(seeds).values()))):
            question = words.classification.format(instruction=seed.instruction)
            texts += [question, words.yes if seed.classification else words.no]
        asked = [[*texts, words.classification.format(instruction=task.instruction)] for task in tasks]
        yes = words.yes.casefold()
        return [
            replace(task, classification=reply.text.strip().casefold().startswith(yes))
            for task, reply in zip(tasks, self.ask(asked, "kinds", exact=True), strict=True)
        ]

    def _instances(self, tasks: Sequence[Task], pool: TaskPool) -> None:
        shown = _by_kind(pool.seeds)
        replies = self.ask([self._worked(task, shown[task.classification]) for task in tasks], "answers")
        for task, reply in zip(tasks, replies, strict=True):
            example = self._example(task, *self._read_instance(task, reply.text.strip()))
            if problem := problem_with(reply, self.prompts) or instance_problem(example):
                self.drop(example, *problem)
            else:
                self.keep(example, "classification" if task.classification else "")
                pool.own.append((example.id, task.instruction))

    def _worked(self, task: Task, shown: Sequence[Seed]) -> list[str]:
        words = self.prompts.self_instruct
        prompt = words.labelled_instance if task.classification else words.instance
        texts: list[str] = []
        for seed in shown:
            parts = [f"{words.input}: {seed.input or words.none}", f"{words.output}: {seed.output}"]
            if task.classification:
                parts = [f"{words.label}: {seed.output}", parts[0]]
            texts += [prompt.format(instruction=seed.instruction, language=self.prompts.language), "\n".join(parts)]
        return [*texts, prompt.format(instruction=task.instruction, language=self.prompts.language)]

    def _read_instance(self, task: Task, text: str) -> tuple[str, str]:
        """Input and output of a reply. Without labels it is the output of a task that needs no input."""
        words = self.prompts.self_instruct
        found = labelled(text, (words.input, words.output, words.label))
        entered = found.get(words.input.casefold(), "")
        if entered.rstrip(".。").casefold() == words.none.casefold():
            entered = ""
        if task.classification:
            return entered, found.get(words.label.casefold(), "")
        return entered, found.get(words.output.casefold(), "") if found else text

    def _example(self, task: Task, entered: str = "", output: str = "") -> Example:
        return self.candidate(task.instruction, output, task.shown, input=entered)


def _by_kind(seeds: Sequence[Seed]) -> dict[bool, list[Seed]]:
    """A few worked examples of classification tasks (True), and of others."""
    return {kind: [seed for seed in seeds if seed.classification is kind][:SHOWN_KINDS] for kind in (True, False)}


def labelled(text: str, labels: Sequence[str]) -> dict[str, str]:
    """What stands behind each label at the beginning of a line, the first time it comes; labels in lower case."""
    names = "|".join(re.escape(label) for label in labels)
    mark = re.compile(rf"^[*_# ]{{0,4}}({names})[*_ ]{{0,3}}[:：][*_]{{0,2}}", re.MULTILINE | re.IGNORECASE)
    parts = mark.split(text)
    found: dict[str, str] = {}
    for label, part in zip(parts[1::2], parts[2::2], strict=True):
        found.setdefault(label.casefold(), part.strip())
    return found


def instance_problem(example: Example) -> Problem | None:
    """Why an instance cannot be used; None where it can."""
    if not example.output:
        return Problem("no output in the reply")
    answer = " ".join(example.output.split()).casefold()
    if answer in (" ".join(example.input.split()).casefold(), " ".join(example.instruction.split()).casefold()):
        return Problem("output repeats what was asked")
    return None
