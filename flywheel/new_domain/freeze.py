"""Draw a domain's evaluation items once and freeze them by content hash: `python -m flywheel.new_domain.freeze`.

Run when a domain is made, never as a stage: the frozen list is committed, and `ingest` refuses sources that no
longer hold every frozen item. Duplicates are grouped first, so that one group never stands on both sides.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict

from tasks.core import files
from tasks.core.domain import Domain, load_domain
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem
from tasks.corpus.ingest.stage import IngestError, Pools, human_examples, items_of, pools_of, read_small
from tasks.similarity.near import duplicate_groups


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


def candidates(domain: Domain) -> Pools:
    """All items that could be evaluated on, by set."""
    human = [] if domain.evaluation_files else [example for example, r in human_examples(domain, []) if r.kept]
    return pools_of(domain, read_small(domain), items_of("domain", human))


def alone(items: list[EvaluationItem], threshold: float, shingle: int) -> list[EvaluationItem]:
    """The items whose question no other resembles: taking one out of a group would waste the others."""
    groups = duplicate_groups([item.prompt for item in items], threshold, shingle)
    sizes = Counter(groups)
    return [item for item, group in zip(items, groups, strict=True) if sizes[group] == 1]


def freeze(domain: Domain, pools: Pools, threshold: float, shingle: int) -> dict[str, list[str]]:
    """The frozen item ids of every set.

    Raises:
        IngestError: a set has fewer candidates than domain.yaml asks for.
    """
    # Files of evaluation items hold nothing else, so nothing there is wasted.
    asked = pools["domain"] if domain.evaluation_files else alone(pools["domain"], threshold, shingle)
    drawn = {name: pools[name] for name in ("mmlu", "declining")}
    for name, items in (("domain", asked), ("dialogue", pools["dialogue"]), ("safety", pools["safety"])):
        try:
            drawn[name] = draw_spread(items, getattr(domain.evaluation, name) or 0)
        except ValueError as error:
            raise IngestError(f"domains/{domain.name}/domain.yaml: evaluation.{name}: {error}") from None
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
    frozen = freeze(domain, candidates(domain), params.mix.leak_threshold, params.dedup.shingle)
    files.write_json(domain.frozen, frozen)
    print(f"{domain.frozen}: " + ", ".join(f"{len(ids)} {name}" for name, ids in frozen.items()))


if __name__ == "__main__":
    main()
