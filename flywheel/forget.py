"""`flywheel forget`: a person, a correction, an example or a source is deleted, and a certificate proves it."""

from __future__ import annotations

from typing import Any

import click

from flywheel.answers import Answer, verb
from tasks.core.layout import home


@verb
@click.option("--identity", metavar="NAME", help="A person, with all they asked and said.")
@click.option("--feedback", metavar="ID", help="One reaction, such as a correction.")
@click.option("--example", metavar="ID", help="One training example, with the row it was read from.")
@click.option("--source", metavar="NAME", help="A source, or one document or row of it: faq, faq/7, learned/a.pdf.")
@click.option("--yes", is_flag=True, help="Do it. Without, only say what would go.")
@click.option("--verify", "certificate", metavar="CERTIFICATE", help="Check again; with --yes, do what is left first.")
def forget(yes: bool, certificate: str | None, **asked: str | None) -> Answer:
    """Delete a person, a correction, an example or a source everywhere, and prove it by a certificate.

    Gone at once: rows, memory, passages, snapshots, cached data. Versions that know it are marked: none is rolled back
    to or promoted without an override, none is trained on. Exit status: 0 done; 1 it could not be; 2 --verify found
    something that still holds it.
    """
    from flows import forget as flow
    from tasks.core.stage import hush

    named = {kind: name for kind, name in asked.items() if name}
    if len(named) + bool(certificate) != 1:
        raise click.UsageError("name one of --identity, --feedback, --example, --source and --verify")
    hush()
    if certificate:
        if yes:
            flow.finish(home(), certificate)
        held = flow.verify(home(), certificate)
        words = "\n".join(["still held by", *(f"  {one}" for one in held)]) if held else "nothing here holds it"
        return Answer({"certificate": certificate, "held_by": held}, words, 2 if held else 0)
    [(kind, name)] = named.items()
    found = flow.forget(home(), kind, name, yes)
    return Answer(found, "\n".join(_lines(found, yes)))


def _lines(found: dict[str, Any], done: bool) -> list[str]:
    """What went, or would go, in lines for people."""
    said = ", ".join(f"{count} {table}" for table, count in found["rows"].items() if count) or "no rows"
    lines = [f"{'forgotten' if done else 'would forget'}: {said} of the database"]
    for name, what in (("snapshots", "snapshots of feedback"), ("files", "files"), ("objects", "objects of DVC")):
        lines += [f"  {len(found[name])} {what}"] if found.get(name) else []
    lines += [f"  version {one['version']} of {one['domain']}: {one['why']}" for one in found.get("versions", ())]
    lines += [f"certificate {found['certificate']}"] if "certificate" in found else []
    lines += [f"  left to do: {one}" for one in found.get("remaining", ())]
    return [*lines, *([] if done else ["nothing was changed; --yes does it"])]
