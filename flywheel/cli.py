"""`flywheel VERB`: small commands over the registry and the reports. Every verb takes --json.

Imports are made inside the verbs, so that `flywheel --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from flywheel.answers import Answer, brief, json_option, registry, verb
from flywheel.compare import compare
from flywheel.loop_verbs import VERBS as LOOP
from flywheel.new_domain.verb import new_domain
from flywheel.platform.verbs import VERBS as PLATFORM
from flywheel.training_verbs import VERBS as TRAINING
from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.registry.versions import Version


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flywheel")
def main() -> None:
    """Flywheel: a domain model that is trained, judged, served and improved, in house.

    One whole release is `make run`.
    """


@click.command()
@json_option
@click.option("--machine", is_flag=True, help="Check the bare machine only; name only what is wrong.")
def doctor(as_json: bool, machine: bool) -> None:
    """Say what this machine or checkout lacks, and how to fix it."""
    from flywheel.doctor import examine, report

    sys.exit(report(examine(home(), machine), as_json, only_problems=machine))


@verb
def status() -> Answer:
    """Show services, what is served, champion, candidate and previous, the last nights, the next run, and the alarm.

    Exit status: 0 all is well, or the platform was taken down on purpose; 1 something needs attention: the alarm, a
    service that is not ready, a lost supervisord, a full disk.
    """
    from flywheel.platform import status as platform_status
    from flywheel.platform.platform import load

    found, words, _ = _versions()
    platform = platform_status.look(load(home()))
    platform["attention"] = platform_status.attention(platform)
    return Answer(
        {**found, **platform},
        f"{words}\n{platform_status.words(platform)}",
        1 if platform["attention"] else 0,
    )


def _versions() -> Answer:
    from flows.stages import changed_stages, open_repo, read_stages

    kept = registry()
    versions = kept.versions()
    with open_repo(home()) as repo:
        changed = changed_stages(repo, read_stages(repo))
    named = {
        alias: next((v for v in versions if alias in v.aliases), None)
        for alias in ("champion", "candidate", "previous")
    }
    found = {
        "domain": kept.domain,
        **{alias: version and brief(version) for alias, version in named.items()},
        "versions": len(versions),
        "changed_stages": changed,
    }
    lines = [f"{kept.domain}: {len(versions)} versions"]
    for alias, version in named.items():
        nothing = "the base model" if alias == "champion" else "–"
        lines.append(f"  {alias:<10} {_words(version) if version else nothing}")
    lines.append(f"  next run   {', '.join(changed) or 'every stage is up to date'}")
    return Answer(found, "\n".join(lines))


def _words(version: Version) -> str:
    return f"version {version.number}, verdict {version.tags.get('verdict')}, package {version.manifest[:12]}"


@verb
def card() -> Answer:
    """Render the release card and the data docs again from the last release's files."""
    from tasks.core.files import sha256_file
    from tasks.curate.quality.data_docs import render_data_docs
    from tasks.evaluate.card.card import collect, render_card

    collect(home())  # says what is missing before the registry is asked
    version = registry().find(verdict_sha256=sha256_file(home() / "reports/verdict.json"))
    paths = [render_card(home(), version.tags if version else None), render_data_docs(home())]
    return Answer({"card": str(paths[0]), "data_docs": str(paths[1])}, "\n".join(map(str, paths)))


for command in (doctor, status, card, compare, new_domain, *LOOP, *PLATFORM, *TRAINING):
    main.add_command(command)


if __name__ == "__main__":
    main()
