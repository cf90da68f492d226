from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.page.examples import MAX_CHARACTERS, domain_examples
from tasks.core.domain import load_domain


def test_a_domain_that_is_not_here_gives_its_name_and_no_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert domain_examples("law") == ("law", [])


def test_a_source_that_cannot_be_read_gives_the_title_and_no_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.flows.toy import make_toy

    monkeypatch.chdir(make_toy(tmp_path))  # its questions are a bare text file
    assert domain_examples("toy") == (load_domain("toy").title, [])


def test_the_default_domains_examples_are_short_different_and_never_evaluated_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.core.records import make_item
    from tasks.corpus.ingest.human import read_human

    monkeypatch.chdir(root)
    title, examples = domain_examples("construction")
    domain = load_domain("construction")
    assert title == domain.title and len(examples) == len(set(examples)) == 4
    assert all(len(example) <= MAX_CHARACTERS for example in examples)
    frozen = set(json.loads(domain.frozen.read_text())["domain"])
    [source] = domain.human
    known, _, _ = read_human(source, domain.paths(source), domain.language)
    items = [make_item(set="domain", prompt=e.prompt, reference=e.output) for e in known]
    assert not set(examples) & {item.prompt for item in items if item.id in frozen}
