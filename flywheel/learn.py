"""`flywheel learn`: new or changed documents, known after minutes and without training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flywheel.answers import Answer, verb
from tasks.core.layout import home


@verb
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--remove", "removed", multiple=True, metavar="NAME", help="Forget the file of this name; may be repeated."
)
@click.option("--dry-run", is_flag=True, help="Say what would be learned, and change nothing.")
def learn(folder: Path | None, removed: tuple[str, ...], dry_run: bool) -> Answer:
    """Let the champion answer from the documents in FOLDER, without training.

    PDF, Word, HTML, Markdown, text and rows of JSON lines become passages of its index, in place of those of files of
    the same names. Questions of the evaluation that find other passages are asked again; the new version is promoted
    if right answers and declining lose no more than their margins. Exit status: 0 learned, or nothing to do; 1 it could
    not be done; 2 the gate says hold or reject.
    """
    from flows.learn import learn as learned
    from tasks.core.stage import hush

    if folder is None and not removed:
        raise click.UsageError("name a folder of documents, or a file to --remove")
    hush()
    found = learned(home(), folder.absolute() if folder else None, removed, dry_run)
    lines = [found.words, *(f"  {name}: {count} passages" for name, count in found.added.items())]
    lines += [f"  {name}: {count} passages removed" for name, count in found.removed.items()]
    lines += [f"  not used: {reason}" for reason in found.unused]
    lines += [f"  {reason}" for reason in found.reasons]
    return Answer(asdict(found), "\n".join(lines), 2 if found.outcome in ("hold", "reject") else 0)
