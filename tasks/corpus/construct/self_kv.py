"""Self-KV: questions and answers from the triples of a knowledge graph, worded by templates.

Why: what a graph states is checked knowledge, so an example built from it needs no judge: its answer is the object of a
triple, and `source` and `evidence` name every triple it says. One triple gives a one-hop question (who issued this
law?); two that share a node give a two-hop question (who issued the law that article 8 belongs to?).

Needs templates for the paths that are to be asked (tasks/corpus/construct/kv_templates.py).

Limits: where a question has several answers, all of them are given, up to the template's `max_answers`; above that the
question is not asked. A two-hop path is walked only where its middle is the only one, or the question would be
ambiguous, and never back to a node it has passed, so that cycles end. A teacher may only reword a question; a
rewording that loses the subject, or tells the answer, is not used.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING

from tasks.core.records import Dropped, Example, Receipt, Triple, make_example
from tasks.core.settings import SettingsError
from tasks.corpus.construct.kv_templates import Template, Templates

if TYPE_CHECKING:
    from tasks.core.params import ConstructParams
    from tasks.corpus.teacher.cache import Reply
    from tasks.corpus.teacher.teacher import Teacher

STAGE = "construct"
INVERSE = "^"
DROPPED_FIELDS = {"id", "origin", "instruction", "input", "output", "source", "evidence"}
MAX_LENGTHENING = 3  # times as long as the template's question a rewording may be


@dataclass(frozen=True)
class Fact:
    """One question's content: from `subject` along a path, over `via` if that has two steps, to all `objects`."""

    subject: str
    via: str
    objects: tuple[str, ...]
    triples: tuple[Triple, ...]


@dataclass
class Built:
    """What Self-KV made. Receipts are for all candidates; `skipped` counts facts that no question was made of."""

    examples: list[Example] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


class Graph:
    """Triples by relation and node, in the order they came; the same statement twice counts once."""

    def __init__(self, triples: Iterable[Triple]) -> None:
        self._edges: dict[str, dict[str, dict[str, Triple]]] = defaultdict(lambda: defaultdict(dict))
        for triple in triples:
            self._edges[triple.relation][triple.subject].setdefault(triple.object, triple)
            self._edges[INVERSE + triple.relation][triple.object].setdefault(triple.subject, triple)

    def step(self, relation: str) -> Mapping[str, Mapping[str, Triple]]:
        """From every node with this relation: the nodes it leads to, each with its triple."""
        return self._edges.get(relation, {})


def facts(graph: Graph, template: Template, skipped: Counter[str]) -> Iterator[Fact]:
    """What a template can ask of a graph; why other places are passed over is counted in `skipped`."""
    walk = _one_hop(graph, template) if len(template.path) == 1 else _two_hops(graph, template, skipped)
    for fact in walk:
        if len(fact.objects) > template.max_answers:
            skipped[f"more than {template.max_answers} answers: {' '.join(template.path)}"] += 1
        else:
            yield fact


def _one_hop(graph: Graph, template: Template) -> Iterator[Fact]:
    for subject, ends in graph.step(template.path[0]).items():
        ends = {node: triple for node, triple in ends.items() if node != subject}
        if ends:
            yield Fact(subject, "", tuple(ends), tuple(ends.values()))


def _two_hops(graph: Graph, template: Template, skipped: Counter[str]) -> Iterator[Fact]:
    first, second = (graph.step(relation) for relation in template.path)
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
    """Facts in the order they are asked, with the number of the question's wording.

    Paths take turns, so that a relation with few triples is not drowned by one with many; within a path the order is
    that of a hash with the seed. Every fact is asked once before any is asked again in other words.
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


def render(template: Template, fact: Fact, wording: int, joiner: str, language: str) -> Example:
    """The example that a fact gives in one wording."""
    values = {"subject": fact.subject, "via": fact.via, "object": joiner.join(fact.objects)}
    answer = template.answers[wording % len(template.answers)].format_map(values)
    return make_example(
        instruction=template.questions[wording].format_map(values),
        output=answer,
        language=language,
        origin="self_kv",
        source=tuple(f"{triple.file}:{triple.line}" for triple in fact.triples),
        category="/".join(relation.removeprefix(INVERSE) for relation in template.path),
        evidence="\n".join(f"{t.subject} | {t.relation} | {t.object}" for t in fact.triples),
    )


def build(
    triples: Iterable[Triple],
    templates: Templates,
    params: ConstructParams,
    seed: int,
    language: str,
    teacher: Teacher | None = None,
) -> Built:
    """Examples from triples: `params.self_kv.examples` of them, or as many as the triples give, never padded.

    `two_hop_share` of them are two-hop questions; what one kind lacks, the other gives. The score in a receipt is 1.0:
    an answer is what its triples say. With `params.self_kv.paraphrase`, the teacher rewords the questions.

    Raises:
        SettingsError: rewording is asked for, and there is no teacher or no prompt for it.
    """
    built = Built()
    pairs = list(_chosen_pairs(Graph(triples), templates, params, seed, language, built))
    if params.self_kv.paraphrase:
        if teacher is None or not templates.paraphrase:
            raise SettingsError("construct.self_kv.paraphrase needs a teacher, and `paraphrase` among the templates")
        pairs, notes = reword(pairs, templates.paraphrase, params, teacher)
    else:
        notes = [""] * len(pairs)
    for (fact, example), note in zip(pairs, notes, strict=True):
        reason = "self_kv: two hops" if fact.via else "self_kv: one hop"
        receipt = Receipt(example_id=example.id, stage=STAGE, kept=True, reason=reason, detail=note, score=1.0)
        built.receipts.append(receipt)
        built.examples.append(example)
    return built


def _chosen_pairs(
    graph: Graph, templates: Templates, params: ConstructParams, seed: int, language: str, built: Built
) -> Iterator[tuple[Fact, Example]]:
    """The facts to ask, one-hop ones first, each with its example."""
    total = params.self_kv.examples
    two_hops = round(total * params.self_kv.two_hop_share)
    seen: set[str] = set()
    pools: list[Iterator[tuple[Fact, Example]]] = []
    for hops in (1, 2):
        part = [template for template in templates.templates if len(template.path) == hops]
        pools.append(_usable(chosen(graph, part, seed, built.skipped), templates.joiner, language, seen, built))
    taken = 0
    for pool, wanted in zip(pools, (total - two_hops, two_hops), strict=True):
        for pair in islice(pool, wanted):
            taken += 1
            yield pair
    yield from islice(chain(*pools), total - taken)


def _usable(
    candidates: Iterable[tuple[Template, Fact, int]], joiner: str, language: str, seen: set[str], built: Built
) -> Iterator[tuple[Fact, Example]]:
    """Candidates as examples; one whose question tells its own answer is dropped, with a receipt."""
    for template, fact, wording in candidates:
        example = render(template, fact, wording, joiner, language)
        if example.id in seen:
            continue
        seen.add(example.id)
        if not tells_answer(example.instruction, fact):
            yield fact, example
            continue
        reason = "self_kv: the question tells its answer"
        built.receipts.append(Receipt(example_id=example.id, stage=STAGE, kept=False, reason=reason, score=1.0))
        content = example.model_dump(include=DROPPED_FIELDS)
        built.dropped.append(Dropped(**content, reason=reason, score=1.0))


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


def reword(
    pairs: Sequence[tuple[Fact, Example]], prompt: str, params: ConstructParams, teacher: Teacher
) -> tuple[list[tuple[Fact, Example]], list[str]]:
    """Every question in the teacher's words where these will do, and a note for each on which words stand."""
    from tasks.corpus.teacher.cache import Ask, dialogue

    asks = [
        Ask(
            messages=dialogue(prompt.format_map({"question": example.instruction})),
            max_tokens=params.teacher.max_tokens,
            temperature=params.teacher.temperature,
        )
        for _, example in pairs
    ]
    reworded, notes = [], []
    for (fact, example), reply in zip(pairs, teacher.ask(asks), strict=True):
        question, problem = usable_rewording(reply, fact, example.instruction)
        reworded.append((fact, example if problem else _with_question(example, question)))
        notes.append(f"the template's words: {problem}" if problem else "the teacher's words")
    return reworded, notes


def usable_rewording(reply: Reply, fact: Fact, question: str) -> tuple[str, str]:
    """A teacher's wording of a question, and why it cannot be used; that is empty where it can."""
    text = reply.text.strip()
    if reply.error:
        return text, f"no reply ({reply.error})"
    if not text or reply.finish_reason != "stop":
        return text, "an empty or cut reply"
    if len(text.splitlines()) > 1 or len(text) > MAX_LENGTHENING * len(question):
        return text, "the reply is more than a question"
    if fact.subject.casefold() not in text.casefold():
        return text, "the reply does not name what it asks about"
    return text, "the reply tells the answer" if tells_answer(text, fact) else ""


def _with_question(example: Example, question: str) -> Example:
    fields = example.model_dump(exclude={"id", "instruction", "output"})
    return make_example(instruction=question, output=example.output, **fields)
