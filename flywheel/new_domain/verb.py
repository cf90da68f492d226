"""The verb `flywheel new-domain`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

import click

from flywheel.answers import Answer, verb
from tasks.core.layout import home


@verb
@click.argument("name")
@click.option(
    "--from", "folder", required=True, type=click.Path(path_type=Path), help="A folder of PDFs, Word files and a CSV."
)
def new_domain(name: str, folder: Path) -> Answer:
    """Build the domain NAME from a folder of your own material, and say what was decided.

    A table of questions and answers (CSV, XLSX or JSON) is needed; PDF, Word, HTML, Markdown and text files become
    documents. Language, columns and title are found out; the folder itself is not changed. The first stages of a
    release are tried, so that what cannot work is refused at once.
    """

    from flywheel.new_domain.new_domain import new_domain as build

    source = folder.absolute()
    with contextlib.chdir(home()):
        built = build(name, source)
    lines = [f"domains/{name} is built.", *(f"  {decision}" for decision in built.decisions)]
    lines += ["Next:", *(f"  {step}" for step in built.next)]
    return Answer(asdict(built), "\n".join(lines))
