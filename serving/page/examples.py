"""Example questions for an empty conversation: from the domain's own human sources, none of them evaluated on.

Reads the domain from the working directory, which is the repository root for every process of ours.
"""

from __future__ import annotations

import json

from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.settings import SettingsError

# A longer question makes no good button.
MAX_CHARACTERS = 70


def domain_examples(name: str, count: int = 4) -> tuple[str, list[str]]:
    """A domain's title and example questions; the bare name and none where its data is not installed here.

    A source that cannot be read gives no examples: that is for stage `ingest` to say, and no reason not to serve.
    """
    try:
        domain = load_domain(name)
    except SettingsError:
        return name, []
    try:
        return domain.title, example_questions(domain, count)
    except FlywheelError:
        return domain.title, []


def example_questions(domain: Domain, count: int) -> list[str]:
    """Up to `count` short questions, each of another category while there are any, in the source's order.

    A question that the evaluation asks is never offered: corrections of it could not be learned from.
    """
    from tasks.core.records import make_item
    from tasks.corpus.ingest.human import read_human

    frozen = json.loads(domain.frozen.read_text(encoding="utf-8"))["domain"] if domain.frozen.is_file() else []
    held_out, by_category, rest = set(frozen), {}, []
    for source in domain.human:
        examples, _, _ = read_human(source, domain.paths(source), domain.language)
        for example in examples:
            item = make_item(set="domain", prompt=example.prompt, reference=example.output)
            if len(example.prompt) > MAX_CHARACTERS or item.id in held_out:
                continue
            if example.category in by_category:
                rest.append(example.prompt)
            else:
                by_category[example.category] = example.prompt
    return [*by_category.values(), *rest][:count]
