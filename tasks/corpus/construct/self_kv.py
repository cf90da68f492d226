"""Self-KV: questions and answers from the triples of a knowledge graph, worded by templates.

An answer is the object of a triple; `source` and `evidence` name every triple it says. Two triples that share a node
give a two-hop question, where the node between is the only one. A teacher may only reword a question.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from pathlib import Path
from string import Formatter
from typing import Annotated, ClassVar

from pydantic import Field, ValidationError, model_validator

from tasks.core.records import Example, Origin, Triple, make_example
from tasks.core.settings import Positive, Section, SettingsError, mistakes, read_yaml
from tasks.corpus.construct.method import Method, problem_with
from tasks.corpus.teacher.teacher import Reply

INVERSE = "^"
MAX_LENGTHENING = 3  # times as long as the template's question a rewording may be
Wordings = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Template(Section):
    """How the questions and answers of one path are worded, which is one relation or two.

    `^relation` is walked from object to subject, as in SPARQL. `{subject}` is what the question starts from, `{via}`
    the node between two relations, `{object}` the answer. With more than `max_answers` the question is not asked.
    """

    path: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2)]
    questions: Wordings
    answers: Wordings
    max_answers: Positive = 1

    @model_validator(mode="after")
    def _fields(self) -> Template:
        two = {"via"} if len(self.path) == 2 else set()
        problems = [p for text in self.questions for p in _field_problems(text, {"subject"}, {"subject"})]
        problems += [p for text in self.answers for p in _field_problems(text, {"object"}, {"subject", "object"} | two)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Templates(Section):
    """All templates of a domain in one language. `joiner` stands between several answers.

    `paraphrase` asks a teacher for another wording of `{question}`; without it, no question is reworded.
    """

    joiner: str = ", "
    paraphrase: str = ""
    templates: Annotated[list[Template], Field(min_length=1)]

    @model_validator(mode="after")
    def _prompt(self) -> Templates:
        problems = _field_problems(self.paraphrase, {"question"}, {"question"}) if self.paraphrase else []
        paths = Counter(tuple(template.path) for template in self.templates)
        problems += [f"path {' '.join(path)} stands here {n} times" for path, n in paths.items() if n > 1]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def load_templates(path: Path, language: str) -> Templates:
    """The templates of a YAML file under one language; raises SettingsError with all mistakes."""
    raw = read_yaml(path)
    if not isinstance(raw, dict) or language not in raw:
        raise SettingsError(f"{path}: no templates for the language {language!r}; add them under that key")
    try:
        return Templates.model_validate(raw[language])
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {language}.{line}" for line in mistakes(error))) from None


def _field_problems(text: str, wanted: set[str], allowed: set[str]) -> list[str]:
    """What is wrong with the placeholders of a template; attributes, indices and formats are not allowed either."""
    try:
        parts = [(name, spec, how) for _, name, spec, how in Formatter().parse(text) if name is not None]
    except ValueError as error:
        return [f"{text!r}: {error}"]
    names = {name for name, _, _ in parts}
    problems = [f"{text!r} lacks {{{name}}}" for name in sorted(wanted - names)]
    problems += [f"{text!r}: unknown {{{name}}}" for name in sorted(names - allowed)]
    return problems + [f"{text!r}: {{{name}}} with a format" for name, spec, how in parts if spec or how]


@dataclass(frozen=True)
class Fact:
    """One question's content: from `subject` along a path, over `via` if that has two steps, to all `objects`."""

    subject: str
    via: str
    objects: tuple[str, ...]
    triples: tuple[Triple, ...]


Graph = Mapping[str, Mapping[str, Mapping[str, Triple]]]  # relation → node → the nodes it leads to, with the triple


def graph_of(triples: Iterable[Triple]) -> Graph:
    """Triples by relation and node, in the order they came; the same statement twice counts once."""
    edges: dict[str, dict[str, dict[str, Triple]]] = defaultdict(lambda: defaultdict(dict))
    for triple in triples:
        edges[triple.relation][triple.subject].setdefault(triple.object, triple)
        edges[INVERSE + triple.relation][triple.object].setdefault(triple.subject, triple)
    return edges


def facts(graph: Graph, template: Template, skipped: Counter[str]) -> Iterator[Fact]:
    """What a template can ask of a graph; why other places are passed over is counted in `skipped`."""
    for fact in (_one_hop if len(template.path) == 1 else _two_hops)(graph, template, skipped):
        if len(fact.objects) > template.max_answers:
            skipped[f"more than {template.max_answers} answers: {' '.join(template.path)}"] += 1
        else:
            yield fact


def _one_hop(graph: Graph, template: Template, _: Counter[str]) -> Iterator[Fact]:
    for subject, ends in graph.get(template.path[0], {}).items():
        ends = {node: triple for node, triple in ends.items() if node != subject}
        if ends:
            yield Fact(subject, "", tuple(ends), tuple(ends.values()))


def _two_hops(graph: Graph, template: Template, skipped: Counter[str]) -> Iterator[Fact]:
    first, second = (graph.get(relation, {}) for relation in template.path)
    for subject, middles in first.items():
        reachable = {node: triple for node, triple in middles.items() if node in second}
        if not reachable:
            continue
        if len(middles) > 1:
            skipped[f"ambiguous middle: {' '.join(template.path)}"] += 1
            continue
        ((via, triple),) = reachable.items()
        ends = {node: end for node, end in second[via].items() if node not in (subject, via)}
        if via == subject or not ends:
            skipped[f"leads back to itself: {' '.join(template.path)}"] += 1
            continue
        yield Fact(subject, via, tuple(ends), (triple, *ends.values()))


def chosen(
    graph: Graph, templates: Sequence[Template], seed: int, skipped: Counter[str]
) -> Iterator[tuple[Template, Fact, int]]:
    """Facts in the order they are asked, with the number of the question's wording: each once before any comes again.

    Paths take turns, so that rare relations are not drowned; within a path the order is that of a hash with the seed.
    """
    queues = []
    for template in templates:
        drawn = [(template, fact, _draw(seed, template, fact.subject)) for fact in facts(graph, template, skipped)]
        queues.append(sorted(drawn, key=lambda entry: entry[2]))
    most = max((len(template.questions) for template in templates), default=0)
    for again in range(most):
        for turn in zip_longest(*queues):
            for entry in turn:
                if entry is not None and again < len(entry[0].questions):
                    template, fact, draw = entry
                    yield template, fact, (draw + again) % len(template.questions)


def _draw(seed: int, template: Template, subject: str) -> int:
    """A number that only this seed, path and subject give; never equal for two subjects of a path in practice."""
    text = "\x1f".join([str(seed), *template.path, subject])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(kw_only=True)
class SelfKv(Method):
    """The method; `seen` are the ids of all candidates so far."""

    origin: ClassVar[Origin] = "self_kv"
    seen: set[str] = field(default_factory=set)

    def build(self, triples: Iterable[Triple], templates: Templates, wanted: int) -> None:
        """`wanted` examples more from the triples of a graph, or as many as these give, never padded.

        `two_hop_share` of them are two-hop questions; what one kind lacks, the other gives. The score in a receipt is
        1.0: an answer is what its triples say. Raises SettingsError where no teacher or prompt can reword as asked.
        """
        pairs = list(self._pairs(graph_of(triples), templates, wanted))
        notes = [""] * len(pairs)
        if self.params.construct_.self_kv.paraphrase:
            pairs, notes = self._reworded(pairs, templates.paraphrase)
        for (fact, example), note in zip(pairs, notes, strict=True):
            self.scores.append(1.0)
            self.keep(example, note, 1.0, kind="two hops" if fact.via else "one hop")

    def _pairs(self, graph: Graph, templates: Templates, wanted: int) -> Iterator[tuple[Fact, Example]]:
        """The facts to ask, one-hop ones first, each with its example."""
        two_hops = round(wanted * self.params.construct_.self_kv.two_hop_share)
        pools = []
        for hops in (1, 2):
            part = [template for template in templates.templates if len(template.path) == hops]
            pools.append(self._usable(chosen(graph, part, self.params.seed, self.skipped), templates.joiner))
        taken = 0
        for pool, share in zip(pools, (wanted - two_hops, two_hops), strict=True):
            for pair in islice(pool, share):
                taken += 1
                yield pair
        yield from islice(chain(*pools), wanted - taken)

    def _usable(self, candidates: Iterable[tuple[Template, Fact, int]], joiner: str) -> Iterator[tuple[Fact, Example]]:
        for template, fact, wording in candidates:
            example = self._example(template, fact, wording, joiner)
            if example.id in self.seen:
                continue
            self.seen.add(example.id)
            if tells_answer(example.instruction, fact):
                self.scores.append(1.0)
                self.drop(example, "the question tells its answer", score=1.0)
            else:
                yield fact, example

    def _example(self, template: Template, fact: Fact, wording: int, joiner: str) -> Example:
        values = {"subject": fact.subject, "via": fact.via, "object": joiner.join(fact.objects)}
        return self.candidate(
            template.questions[wording].format_map(values),
            template.answers[wording % len(template.answers)].format_map(values),
            tuple(f"{triple.file}:{triple.line}" for triple in fact.triples),
            category="/".join(relation.removeprefix(INVERSE) for relation in template.path),
            evidence="\n".join(f"{t.subject} | {t.relation} | {t.object}" for t in fact.triples),
        )

    def _reworded(
        self, pairs: Sequence[tuple[Fact, Example]], prompt: str
    ) -> tuple[list[tuple[Fact, Example]], list[str]]:
        if not prompt:
            raise SettingsError("construct.self_kv.paraphrase needs `paraphrase` among the templates")
        asked = ([prompt.format_map({"question": example.instruction})] for _, example in pairs)
        reworded, notes = [], []
        for (fact, example), reply in zip(pairs, self.ask(asked, "questions"), strict=True):
            problem = self._rewording_problem(reply, fact, example.instruction)
            if not problem:
                fields = example.model_dump(exclude={"id", "instruction", "output"})
                example = make_example(instruction=reply.text.strip(), output=example.output, **fields)
            reworded.append((fact, example))
            notes.append(f"the template's words: {problem}" if problem else "the teacher's words")
        return reworded, notes

    def _rewording_problem(self, reply: Reply, fact: Fact, question: str) -> str:
        if problem := problem_with(reply, self.prompts):
            return problem.reason
        text = reply.text.strip()
        if len(text.splitlines()) > 1 or len(text) > MAX_LENGTHENING * len(question):
            return "the reply is more than a question"
        if fact.subject.casefold() not in text.casefold():
            return "the reply does not name what it asks about"
        return "the reply tells the answer" if tells_answer(text, fact) else ""


def tells_answer(question: str, fact: Fact) -> bool:
    """Whether a question says one of its answers as words of its own, upper and lower case alike."""
    folded = question.casefold()
    return any(_says(folded, answer.casefold()) for answer in fact.objects)


def _says(text: str, phrase: str) -> bool:
    """Whether `phrase` stands in `text`; in scripts with spaces, "act" does not stand in "fact"."""
    for found in re.finditer(re.escape(phrase), text):
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        if not (_spaced(before + phrase[0]) or _spaced(phrase[-1] + after)):
            return True
    return False


def _spaced(pair: str) -> bool:
    """Whether two characters that touch are parts of one word, in a script that puts spaces between words."""
    return len(pair) == 2 and all(c.isalnum() and unicodedata.east_asian_width(c) not in "WF" for c in pair)
