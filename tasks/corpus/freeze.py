"""Draw a domain's evaluation items once and freeze them by content hash: `python -m tasks.corpus.freeze`.

Run when a domain is made, never as a stage: the frozen list is committed, and `ingest` refuses sources that no
longer hold every frozen item. Duplicates are grouped first, so that one group never stands on both sides.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from tasks import files
from tasks.corpus.ingest import Sources, candidates, read_sources
from tasks.curate.near import duplicate_groups
from tasks.domain import Domain, load_domain
from tasks.params import load_params
from tasks.records import EvaluationItem


def draw_spread(items: list[EvaluationItem], size: int) -> list[EvaluationItem]:
    """Draw `size` items spread over their categories in proportion (largest remainders), in order of their hash.

    The hash of an item is as good as random and the same on every machine, so no seed is needed.

    Raises:
        ValueError: there are fewer items than `size`.
    """
    if len(items) < size:
        raise ValueError(f"{size} items are asked for, and there are {len(items)}")
    groups: dict[str, list[EvaluationItem]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.id):
        groups[item.category].append(item)
    exact = {category: size * len(group) / len(items) for category, group in groups.items()}
    quota = {category: int(share) for category, share in exact.items()}
    by_remainder = sorted(exact, key=lambda category: (quota[category] - exact[category], category))
    for category in by_remainder[: size - sum(quota.values())]:
        quota[category] += 1
    return [item for category in sorted(groups) for item in groups[category][: quota[category]]]


def freeze(domain: Domain, sources: Sources, threshold: float, shingle: int) -> dict[str, list[str]]:
    """The frozen item ids of every set."""
    pools = candidates(domain, sources)
    texts = [item.prompt for item in pools["domain"]]
    groups = duplicate_groups(texts, threshold, shingle)
    # Only questions that nothing resembles are drawn: taking one out of a group would waste the others.
    alone = [item for item, group in zip(pools["domain"], groups, strict=True) if groups.count(group) == 1]
    drawn = {
        "domain": draw_spread(alone, domain.evaluation.domain),
        "dialogue": draw_spread(pools["dialogue"], domain.evaluation.dialogue),
        "mmlu": pools["mmlu"],
        "safety": draw_spread(pools["safety"], domain.evaluation.safety),
    }
    return {name: sorted(item.id for item in items) for name, items in drawn.items()}


def main() -> None:
    """Freeze the evaluation items of the domain in params.yaml, or of `--domain`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--domain", help="a folder under domains/; default: the domain in params.yaml")
    parser.add_argument("--again", action="store_true", help="replace a frozen list; old verdicts stop comparing")
    arguments = parser.parse_args()
    params = load_params()
    domain = load_domain(arguments.domain or params.domain)
    if domain.frozen.exists() and not arguments.again:
        parser.error(f"{domain.frozen} exists; --again replaces it")
    frozen = freeze(domain, read_sources(domain), params.mix.leak_threshold, params.dedup.shingle)
    files.write_json(domain.frozen, frozen)
    print(f"{domain.frozen}: " + ", ".join(f"{len(ids)} {name}" for name, ids in frozen.items()))


if __name__ == "__main__":
    main()
