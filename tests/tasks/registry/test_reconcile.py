"""The ledger is the truth, the alias a request: with a real MLflow registry and a real database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.registry import deploy
from tasks.registry.deploy import may_serve, settled_champion
from tasks.registry.versions import PromotionRefused, Registry, Version
from tasks.store import ledger
from tasks.store.store import Store
from tests.tasks.registry.registered import judged


def point(registry: Registry, version: Version, alias: str = "champion") -> None:
    """What somebody does in the MLflow page."""
    registry.client.set_registered_model_alias(registry.domain, alias, version.number)


def events(store: Store, registry: Registry) -> list[tuple[str, str | None]]:
    return [(entry.event, entry.version) for entry in reversed(ledger.entries(store, registry.domain))]


def served(store: Store, registry: Registry) -> str | None:
    """The number of the version that may be served."""
    champion = settled_champion(store, registry)
    return champion.number if champion else None


def two_champions(registry: Registry, store: Store) -> tuple[Version, Version]:
    """Version 1 over the base, then version 2 over version 1."""
    one = judged(registry, "1")
    deploy.promote(registry, store, one, "anna", "first")
    two = judged(registry, "2", against="1" * 64)
    deploy.promote(registry, store, two, "anna", "second")
    return one, two


def test_a_promotion_is_written_once(registry: Registry, store: Store) -> None:
    version = judged(registry, "1")
    deploy.promote(registry, store, version, "anna", "first")
    deploy.promote(registry, store, version, "anna", "again")
    assert events(store, registry) == [("promoted", "1")]
    assert served(store, registry) == "1" and len(events(store, registry)) == 1


def test_of_twenty_that_promote_at_once_one_wins_and_the_others_say_why_not(registry: Registry, store: Store) -> None:
    """All were judged against the base model, which is the champion of none but the first."""
    versions = [judged(registry, letter) for letter in "123456789acdefghijkm"]

    def promoted(version: Version) -> str:
        try:
            deploy.promote(registry, store, version, version.number, "at once")
        except PromotionRefused as refused:
            return str(refused)
        return ""

    with ThreadPoolExecutor(len(versions)) as pool:
        said = list(pool.map(promoted, versions))
    assert said.count("") == 1, said
    winner = versions[said.index("")].number
    assert events(store, registry) == [("promoted", winner)] and served(store, registry) == winner
    assert all("judged against" in reason for reason in said if reason), said


def test_a_version_that_passes_may_be_made_champion_in_the_registry_itself(registry: Registry, store: Store) -> None:
    deploy.promote(registry, store, judged(registry, "1"), "anna", "first")
    point(registry, judged(registry, "2", against="1" * 64))
    assert served(store, registry) == "2"
    assert events(store, registry) == [("promoted", "1"), ("promoted", "2")]
    assert registry.get("previous").number == "1"


def test_a_version_without_a_passing_verdict_is_refused_and_the_alias_put_back(
    registry: Registry, store: Store
) -> None:
    deploy.promote(registry, store, judged(registry, "1"), "anna", "first")
    point(registry, judged(registry, "2", outcome="hold", against="1" * 64))
    assert served(store, registry) == "1" and registry.get("champion").number == "1"
    assert events(store, registry) == [("promoted", "1"), ("refused", "2"), ("restored", "1")]


def test_an_override_with_a_reason_is_honoured(registry: Registry, store: Store) -> None:
    deploy.promote(registry, store, judged(registry, "1"), "anna", "first")
    held = judged(registry, "2", outcome="hold", against="1" * 64)
    point(registry, registry.override(held, "the margin is mine to judge"))
    assert settled_champion(store, registry) is not None
    last = ledger.last(store, registry.domain)
    assert last and (last.event, last.version, last.reason) == ("override", "2", "the margin is mine to judge")


def test_an_alias_moved_back_to_an_earlier_champion_is_a_rollback(registry: Registry, store: Store) -> None:
    one, two = two_champions(registry, store)
    point(registry, one)
    assert served(store, registry) == "1"
    assert events(store, registry)[-1] == ("rolled_back", "1") and registry.get("previous").number == two.number
    assert registry.get("2").tags["rolled_back"] == "true"


def test_what_was_rolled_back_comes_back_only_with_an_override(registry: Registry, store: Store) -> None:
    _, two = two_champions(registry, store)
    deploy.roll_back(registry, store, "anna", "worse at stairs")
    point(registry, two)
    assert served(store, registry) == "1"
    assert "was rolled back" in str(may_serve(store, registry, registry.get("2")))


def test_a_second_rollback_looks_in_the_ledger_for_an_earlier_champion(registry: Registry, store: Store) -> None:
    two_champions(registry, store)
    deploy.promote(registry, store, registry.override(judged(registry, "3", outcome="hold"), "mine"), "anna", "third")
    gone_back = [deploy.roll_back(registry, store, "anna", "worse")[0].number for _ in range(2)]
    assert gone_back == ["2", "1"] and events(store, registry)[-2:] == [("rolled_back", "2"), ("rolled_back", "1")]


def test_an_alias_that_the_ledger_knows_nothing_of(registry: Registry, store: Store) -> None:
    """One that may not be honoured goes; that of a registry older than its ledger stays; a removed one comes back."""
    point(registry, judged(registry, "1", outcome="reject"))
    assert served(store, registry) is None and registry.alias("champion") is None
    registry.promote(judged(registry, "2"))
    assert served(store, registry) == "2" and events(store, registry)[-1] == ("promoted", "2")
    registry.client.delete_registered_model_alias(registry.domain, "champion")
    assert served(store, registry) == "2" and registry.get("champion").number == "2"


def test_only_an_open_question_can_be_approved(registry: Registry, store: Store) -> None:
    version, refused = judged(registry, "1"), judged(registry, "2")
    with pytest.raises(PromotionRefused, match="nobody asked"):
        deploy.approve(registry, store, version, "anna", "", hours=1)
    for one in (version, refused):
        ledger.ask(store, registry.domain, one.number, one.manifest)
    with pytest.raises(PromotionRefused, match="has expired"):
        deploy.approve(registry, store, version, "anna", "", hours=0.0)
    ledger.decide(store, registry.domain, "2", False, "bo", "too terse")
    with pytest.raises(PromotionRefused, match="refused by bo: too terse"):
        deploy.approve(registry, store, refused, "anna", "", hours=1)
    deploy.approve(registry, store, version, "anna", "read it", hours=1)
    assert registry.get("champion").number == "1"
    assert events(store, registry) == [("promoted", "1"), ("approved", "1")]


@pytest.mark.parametrize("answer", [None, False])
def test_what_waits_or_was_refused_needs_an_override(registry: Registry, store: Store, answer: bool | None) -> None:
    """A question that has expired is one that nobody answered; one about another package stands in nobody's way."""
    deploy.promote(registry, store, judged(registry, "1"), "anna", "first")
    asked = judged(registry, "2", against="1" * 64)
    ledger.ask(store, registry.domain, "2", asked.manifest)
    if answer is not None:
        ledger.decide(store, registry.domain, "2", answer, "bo", "too terse")
    words = "waits for a person: `flywheel approve 2`" if answer is None else "refused by bo: too terse"
    with pytest.raises(PromotionRefused, match=words):
        deploy.promote(registry, store, asked, "anna", "second")
    point(registry, asked)
    assert served(store, registry) == "1" and words in str(may_serve(store, registry, asked))
    deploy.promote(registry, store, registry.override(asked, "the board wants it"), "anna", "")
    assert served(store, registry) == "2"
    other = judged(registry, "3", against="2" * 64)
    ledger.ask(store, registry.domain, "3", "of an older registry")
    deploy.promote(registry, store, other, "anna", "third")
    assert served(store, registry) == "3"


def test_a_former_champion_that_knows_what_was_forgotten_is_put_back_unless_overridden(
    registry: Registry, store: Store
) -> None:
    one, _ = two_champions(registry, store)
    registry.mark_forgotten(one, "c1")
    registry.mark_forgotten(registry.get("1"), "c2")
    registry.mark_forgotten(registry.get("1"), "c1")
    assert registry.get("1").tags["forget"] == "c2,c1"
    point(registry, one)
    assert served(store, registry) == "2"
    assert "knows what was forgotten" in ledger.entries(store, registry.domain, "refused")[0].reason
    point(registry, registry.override(registry.get("1"), "the board wants it"))
    assert served(store, registry) == "1"
