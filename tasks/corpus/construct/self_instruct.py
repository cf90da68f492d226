"""Self-Instruct (Wang et al. 2022, arXiv 2212.10560): new tasks, with inputs and answers, from hand-written seeds.

The four steps of its section 2.2, in rounds:

1. Instruction generation: a few instructions of the pool are shown, a quarter of them the model's own where there are
   any (6 seeds and 2 of its own in the paper), and the teacher writes more.
2. Classification task identification, by worked examples of both kinds.
3. Instance generation: input first; for classification tasks output first, or the model writes every input for one
   label.
4. Filtering: an instruction is new where its ROUGE-L to every other is at most `max_similarity`; tasks that text
   cannot follow, and instances that are empty or repeat their input or instruction, are left out. (A task gets one
   instance here, so none can contradict another.)

ROUGE-L is by characters, so that it works where words have no spaces between them. Similar word order alone gives
unrelated English sentences about 0.5 by this measure, so 0.7 is a milder bound than the paper's 0.7 by words.

Limits: instructions are shown and read one a line. What a teacher writes here follows from no evidence: its truth is
not checked, only its form.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

from rapidfuzz import process
from rapidfuzz.distance import Indel

from tasks.core.params import SelfInstructParams, TeacherParams
from tasks.core.records import Example, Seed, make_example
from tasks.corpus.construct.replies import Problem, items, mentioned, problem_with, unclean
from tasks.corpus.construct.result import Made
from tasks.corpus.construct.teacher_prompts import TeacherPrompts
from tasks.corpus.teacher.cache import Ask, Reply, dialogue

if TYPE_CHECKING:
    from tasks.corpus.teacher.teacher import Teacher

ROUND = 16  # requests for instructions, after which the pool has grown; a constant, for it shapes what is built
NEW_PER_PROMPT = 4
OWN_SHARE = 0.25  # of the instructions shown: the model's own
SHOWN_KINDS = 3  # worked examples of each kind of task, in steps 2 and 3
MIN_INSTRUCTION, MAX_INSTRUCTION = 5, 400  # characters


def rouge_l(one: str, other: str) -> float:
    """ROUGE-L F1 by characters (Lin 2004, equations 2 to 4, with β = 1): 2 × LCS / (both lengths together)."""
    return float(Indel.normalized_similarity(one, other))


@dataclass
class Pool:
    """Every instruction there is, and those that may be shown: seeds, and the teacher's own with their source."""

    seeds: list[Seed]
    known: list[str]
    own: list[tuple[str, str]] = field(default_factory=list)  # id of the example, instruction

    @classmethod
    def of(cls, seeds: Sequence[Seed], others: Iterable[str]) -> Pool:
        """A pool of seeds, with other instructions that must not come again."""
        return cls(list(seeds), [seed.instruction for seed in seeds] + list(others))

    def nearest(self, instruction: str, at_least: float) -> tuple[str, float] | None:
        """The most similar instruction, with its ROUGE-L, where that exceeds `at_least`."""
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


@dataclass
class SelfInstruct:
    """The method with everything it needs. `title` is the domain's subject, in its language."""

    params: SelfInstructParams
    settings: TeacherParams
    prompts: TeacherPrompts
    language: str
    title: str
    teacher: Teacher
    seed: int

    def build(self, seeds: Sequence[Seed], others: Iterable[str]) -> Made:
        """New examples: as many as wanted, or as the requests, the budget and the teacher give. Never padded."""
        made, pool, rng = Made("self_instruct"), Pool.of(seeds, others), random.Random(self.seed)
        begun = self.teacher.usage.requests
        waiting: list[Task] = []
        while len(made.examples) < self.params.examples and not self.teacher.exhausted:
            left = self.params.max_requests - (self.teacher.usage.requests - begun)
            if not waiting:
                # Each instruction takes two requests more, so a round begins only where they are left.
                if left < 3:
                    break
                waiting = self._instructions(min(ROUND, left // 3), pool, rng, made)
                continue
            if left < 2:
                break
            take = min(self.params.examples - len(made.examples), left // 2)
            now, waiting = waiting[:take], waiting[take:]
            self._instances(self._classified(now, seeds), seeds, pool, made)
        for task in waiting:
            made.drop(self._example(task, "", ""), "not answered", "enough examples, or no requests left")
        return made

    def _instructions(self, prompts: int, pool: Pool, rng: random.Random, made: Made) -> list[Task]:
        """Step 1, and the filters on instructions."""
        shown = [pool.shown(self.params.seeds_per_prompt, rng) for _ in range(prompts)]
        sample = self.teacher.usage.requests
        asks = [
            self._ask(self._list_prompt([text for _, text in part]), sample=sample + n) for n, part in enumerate(shown)
        ]
        tasks: list[Task] = []
        for part, reply in zip(shown, self.teacher.ask(asks, "self_instruct: instructions"), strict=True):
            sources = tuple(identity for identity, _ in part)
            problem = problem_with(reply, self.prompts)
            if problem and problem.reason != "cut short":
                made.drop(self._example(Task("", sources), "", reply.text), f"tasks: {problem.reason}", problem.detail)
                continue
            lines = items(reply.text, marked_only=True)
            # The last line of a reply that was cut is not whole.
            lines = (lines[:-1] if problem else lines)[:NEW_PER_PROMPT]
            if not lines:
                made.drop(self._example(Task("", sources), "", reply.text), "no task in the reply")
            tasks += [Task(line, sources) for line in lines if self._is_new(Task(line, sources), pool, made)]
        return tasks

    def _list_prompt(self, instructions: list[str]) -> str:
        """The pool's instructions as a numbered list that goes on."""
        listed = "\n".join(f"{n}. {' '.join(text.split())}" for n, text in enumerate(instructions, start=1))
        return self.prompts.self_instruct.instructions.format(
            title=self.title,
            tasks=listed,
            number=NEW_PER_PROMPT,
            next=len(instructions) + 1,
            language=self.prompts.language,
        )

    def _is_new(self, task: Task, pool: Pool, made: Made) -> bool:
        """Whether an instruction may join the pool, which it does."""
        example = self._example(task, "", "")
        if problem := self._instruction_problem(task.instruction):
            made.drop(example, *problem)
            return False
        if found := pool.nearest(task.instruction, self.params.max_similarity):
            made.drop(example, "not novel", f"ROUGE-L {found[1]:.2f} to: {found[0]}", found[1])
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
        for seed in _both_kinds(seeds):
            question = words.classification.format(instruction=seed.instruction)
            texts += [question, words.yes if seed.classification else words.no]
        asks = [
            self._ask(*texts, words.classification.format(instruction=task.instruction), exact=True) for task in tasks
        ]
        replies = self.teacher.ask(asks, "self_instruct: kinds")
        yes = words.yes.casefold()
        answers = [reply.text.strip().casefold().startswith(yes) for reply in replies]
        return [
            Task(task.instruction, task.shown, classification)
            for task, classification in zip(tasks, answers, strict=True)
        ]

    def _instances(self, tasks: Sequence[Task], seeds: Sequence[Seed], pool: Pool, made: Made) -> None:
        """Step 3, and the filters on instances."""
        shown = {kind: [seed for seed in seeds if seed.classification is kind][:SHOWN_KINDS] for kind in (True, False)}
        asks = [self._ask(*self._worked(task, shown[task.classification])) for task in tasks]
        for task, reply in zip(tasks, self.teacher.ask(asks, "self_instruct: answers"), strict=True):
            entered, output = self._read_instance(task, reply)
            example = self._example(task, entered, output)
            if problem := problem_with(reply, self.prompts) or instance_problem(example):
                made.drop(example, *problem)
            else:
                made.keep(example, "classification" if task.classification else "")
                pool.own.append((example.id, task.instruction))

    def _worked(self, task: Task, shown: Sequence[Seed]) -> list[str]:
        """Worked examples of the same kind, then the task: for classification the label comes before the input."""
        words = self.prompts.self_instruct
        prompt = words.labelled_instance if task.classification else words.instance
        texts: list[str] = []
        for seed in shown:
            entered = f"{words.input}: {seed.input or words.none}"
            labelled, plain = f"{words.label}: {seed.output}\n{entered}", f"{entered}\n{words.output}: {seed.output}"
            answer = labelled if task.classification else plain
            texts += [self._filled(prompt, seed.instruction), answer]
        return [*texts, self._filled(prompt, task.instruction)]

    def _filled(self, prompt: str, instruction: str) -> str:
        return prompt.format(instruction=instruction, language=self.prompts.language)

    def _read_instance(self, task: Task, reply: Reply) -> tuple[str, str]:
        """Input and output of a reply. Without labels it is the output of a task that needs no input."""
        words = self.prompts.self_instruct
        text = reply.text.strip()
        found = labelled(text, (words.input, words.output, words.label))
        entered = found.get(words.input.casefold(), "")
        if entered.rstrip(".。").casefold() == words.none.casefold():
            entered = ""
        if task.classification:
            return entered, found.get(words.label.casefold(), "")
        return entered, found.get(words.output.casefold(), "") if found else text

    def _example(self, task: Task, entered: str, output: str) -> Example:
        return make_example(
            instruction=task.instruction,
            input=entered,
            output=output,
            language=self.language,
            origin="self_instruct",
            source=task.shown,
        )

    def _ask(self, *texts: str, sample: int = 0, exact: bool = False) -> Ask:
        temperature = 0.0 if exact else self.settings.temperature
        tokens = 8 if exact else self.settings.max_tokens
        return Ask(messages=dialogue(*texts), max_tokens=tokens, temperature=temperature, sample=sample)


def _both_kinds(seeds: Sequence[Seed]) -> list[Seed]:
    """Worked examples of step 2, a seed of each kind in turn."""
    labelled = [seed for seed in seeds if seed.classification][:SHOWN_KINDS]
    others = [seed for seed in seeds if not seed.classification][:SHOWN_KINDS]
    return [seed for pair in zip_longest(labelled, others) for seed in pair if seed is not None]


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
    said = " ".join(example.output.split()).casefold()
    if said in (" ".join(example.input.split()).casefold(), " ".join(example.instruction.split()).casefold()):
        return Problem("output repeats what was asked")
    return None
