"""Versions and promotion, against a real MLflow registry in SQLite."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.registry.versions import (
    NOT_SERVED,
    PromotionRefused,
    Registry,
    UnknownVersion,
    anchor_of,
    held_nights,
    line_of,
    renewal_of,
    spent_since,
)
from tests.tasks.registry.registered import BASE, judged


def test_the_old_champion_becomes_previous_and_promoting_again_changes_nothing(registry: Registry) -> None:
    one = judged(registry, "1")
    assert registry.promote(one) is None
    assert registry.promote(one) == registry.get("champion") and registry.alias("previous") is None
    registry.promote(judged(registry, "2", against="1" * 64))
    assert [registry.get(alias).number for alias in ("champion", "previous", "candidate")] == ["2", "1", "2"]


def test_a_version_is_known_by_its_package_and_its_verdict(registry: Registry) -> None:
    first, again = judged(registry, "1"), judged(registry, "1")
    assert first.number == again.number and len(registry.versions()) == 1
    assert judged(registry, "1", outcome="hold").number == "2"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"outcome": "hold"}, "its verdict is 'hold', not 'promote'"),
        ({"candidate": {"digest": "9" * 64}}, "judged package 999999999999, this is 222222222222"),
        ({}, "judged against bbbbbbbbbbbb, but the champion is version 1, 111111111111"),  # it was judged before
    ],
)
def test_a_verdict_that_does_not_promote_this_package_over_this_champion_is_refused(
    registry: Registry, changes: dict[str, Any], reason: str
) -> None:
    registry.promote(judged(registry, "1"))
    with pytest.raises(PromotionRefused, match=reason):
        registry.promote(judged(registry, "2", **changes))
    assert registry.get("champion").number == "1"


def test_a_verdict_that_was_changed_after_registration_is_refused(registry: Registry) -> None:
    version = judged(registry, "1", outcome="hold")
    forged = json.dumps({"outcome": "promote", "candidate": {"digest": "1" * 64}, "champion": {"digest": BASE}})
    registry.client.log_text(version.run_id, forged, "verdict.json")
    registry.client.set_model_version_tag(registry.domain, version.number, "verdict", "promote")
    with pytest.raises(PromotionRefused, match="not the one it was registered with"):
        registry.promote(registry.get("1"))


def test_an_override_with_a_reason_lifts_the_refusal_and_one_without_is_none(registry: Registry) -> None:
    version = judged(registry, "1", outcome="hold")
    with pytest.raises(PromotionRefused, match="needs a reason"):
        registry.override(version, "  ")
    registry.promote(registry.override(version, "shown to the board"))
    assert registry.get("champion").tags["override"] == "shown to the board"


def test_what_no_engine_serves_is_refused_even_with_an_override(registry: Registry) -> None:
    version = judged(registry, "a")
    registry.client.set_model_version_tag(registry.domain, version.number, "served_as", "nothing")
    version = registry.override(registry.get(version.number), "I want it")
    with pytest.raises(PromotionRefused, match="no engine of ours adds virtual tokens"):
        registry.promote(version)
    assert registry.alias("champion") is None


def test_a_rollback_exchanges_the_two_and_only_an_override_brings_back_what_was_rolled_back(registry: Registry) -> None:
    registry.promote(judged(registry, "1"))
    with pytest.raises(PromotionRefused, match="no previous champion"):
        registry.roll_back()
    registry.promote(judged(registry, "2", against="1" * 64))
    champion, previous = registry.roll_back()
    assert (champion.number, previous.number) == ("1", "2")
    assert registry.get("champion").number == "1" and registry.get("previous").number == "2"
    with pytest.raises(PromotionRefused, match="it was rolled back by a person"):
        registry.promote(registry.get("2"))
    registry.promote(registry.override(registry.get("2"), "the cause is fixed"))
    assert registry.get("champion").number == "2"


def test_a_rollback_goes_back_to_no_version_that_was_rolled_back(registry: Registry) -> None:
    """From 3 to 2, then past 3 to 1, then nowhere; an override makes 2 one to go back to again."""
    for number in (1, 2, 3):
        registry.promote(judged(registry, str(number), against=str(number - 1) * 64 if number > 1 else "b" * 64))
    earlier = ["2", "3", "2", "1"]
    assert [registry.roll_back(earlier)[0].number for _ in range(2)] == ["2", "1"]
    with pytest.raises(PromotionRefused, match="every champion before version 1 was rolled back"):
        registry.roll_back(["1", *earlier])
    registry.promote(registry.override(registry.get("2"), "it was right after all"))
    registry.promote(registry.override(registry.get("3"), "likewise"))
    assert registry.roll_back()[0].number == "2"


def test_what_a_rolled_back_version_had_learnt_is_held_until_an_override(registry: Registry) -> None:
    """Version 2 learnt nights 1 to 3, version 3 on top of it nights 4 and 5; both are rolled back by a person."""
    for package, night, continues in (("1", "0", "base"), ("2", "3", "1"), ("3", "5", "2")):
        version = registry.override(judged(registry, package), "for the test")
        for key, value in {"feedback_night": night, "continues": continues}.items():
            registry.client.set_model_version_tag(registry.domain, version.number, key, value)
        registry.promote(registry.get(version.number))
    assert held_nights(registry) == ()
    assert [version.number for version in line_of(registry, registry.get("champion"))] == ["3", "2", "1"]
    registry.roll_back()
    assert held_nights(registry) == (4, 5)
    registry.roll_back(["1"])
    assert held_nights(registry) == (1, 2, 3, 4, 5)
    registry.override(registry.get("3"), "it was right")
    assert held_nights(registry) == (1, 2, 3)


def test_a_line_is_anchored_at_its_last_version_that_was_judged_as_a_release(registry: Registry) -> None:
    for package, continues in (("1", "base"), ("2", "1"), ("3", "2")):
        version = judged(registry, package)
        registry.client.set_model_version_tag(registry.domain, version.number, "continues", continues)

    def anchor(asked: dict[str, str]) -> str | None:
        for number, value in asked.items():
            registry.client.set_model_version_tag(registry.domain, number, "asked", value)
        found = anchor_of(registry, registry.get("3"))
        return found and found.number

    assert anchor({}) is None, "no version says what it was asked"
    assert anchor({"1": "release", "2": "night", "3": "none"}) == "1"
    assert anchor({"2": "release"}) == "2"
    assert anchor({"3": "release"}) == "3"
    assert anchor({"1": "release", "2": "night", "3": "renewal"}) == "1", "it began at version 2, not anew"
    assert anchor({"1": "renewal"}) == "1"


def test_what_follows_a_champion_begins_anew_where_it_knows_too_much_or_the_anchor_alone_held_the_last_night(
    registry: Registry,
) -> None:
    judged(registry, "1")
    assert renewal_of(registry, None) == renewal_of(registry, registry.get("1")) == ""

    def then(package: str, outcome: str, **tags: str) -> str:
        version = judged(registry, package, outcome=outcome)
        for key, value in ({"continues": "1", "asked": "night"} | tags).items():
            registry.client.set_model_version_tag(registry.domain, version.number, key, value)
        return renewal_of(registry, registry.get("1"))

    assert then("2", "hold", not_passed="dialogue_nll,dialogue_nll_since_anchor") == ""
    assert then("3", "hold", not_passed="dialogue_nll_since_anchor") == "drifted"
    assert then("4", "hold", not_passed="domain_nll_since_base", asked="renewal", continues="base") == "drifted"
    assert then("5", "hold", not_passed="dialogue_nll") == ""
    registry.mark_forgotten(registry.get("1"), "c")
    assert renewal_of(registry, registry.get("1")) == "forgotten"


def test_a_night_spends_what_it_did_not_pass_once_and_a_release_sets_that_back(registry: Registry) -> None:
    """Version 2 is judged again as 3; 4 passes, is rolled back, and 5 goes on from it all the same; 7 is a release.

    9 and 10 are renewals over the champion of then, of which each counts.
    """
    rows = [
        ("1", "base", "release", "0", "a"),
        ("2", "1", "night", "4", "a,b"),
        ("3", "1", "night", "4", "a"),
        ("4", "1", "night", "5", ""),
        ("5", "4", "night", "6", "a"),
        ("6", "4", "none", "6", "a,b"),
        ("7", "4", "release", "6", "a"),
        ("8", "7", "night", "8", "b"),
        ("9", "base", "renewal", "9", "b,c"),
        ("a", "base", "renewal", "9", "c"),
    ]
    names = ("continues", "asked", "feedback_night", "not_passed")
    for package, *values in rows:
        version = judged(registry, package)
        for key, value in zip(names, values, strict=True):
            registry.client.set_model_version_tag(registry.domain, version.number, key, value)
    found = [spent_since(registry, registry.get(number), night) for number, night in (("1", 9), ("7", 9), ("7", None))]
    assert found == [{"a": 2, "b": 1}, {"b": 1}, {"b": 2, "c": 2}], "night 9 itself, taken up again, does not count"
    assert spent_since(registry, registry.get("1"), 6) == {"a": 1, "b": 2, "c": 2}


def test_what_no_gateway_served_is_not_held(registry: Registry) -> None:
    for package in "12":
        version = registry.override(judged(registry, package), "for the test")
        registry.client.set_model_version_tag(registry.domain, version.number, "feedback_night", package)
        registry.promote(registry.get(version.number))
    registry.roll_back(mark=NOT_SERVED)
    assert held_nights(registry) == ()


def test_an_unknown_version_is_named_with_those_there_are(registry: Registry) -> None:
    judged(registry, "1")
    with pytest.raises(UnknownVersion, match=r"no version '7' of .*; there are: 1"):
        registry.get("7")


def test_a_version_is_found_by_its_inputs_and_by_later_equal_ones(registry: Registry) -> None:
    version = judged(registry, "1")
    registry.finish(version, "other inputs with the same result")
    found = registry.of_inputs("other inputs with the same result")
    assert found is not None and found.number == "1" and found.tags["released"] == "true"
    assert registry.of_inputs("1") is not None and registry.of_inputs("unknown") is None
