"""A new domain's first stages, tried at once and in a place of their own, so that none of them refuses it later.

Ingest runs as it will run in a release. Validation needs the tokenizer of the base model: that of data/base_model where
it is this model, else the one in its package; where params.yaml does not accept the model's terms only the number of
rows is held against the bound, and that is said.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import write_manifest, write_text
from tasks.core.params import load_params
from tasks.core.records import Example
from tasks.core.tables import read_records
from tasks.corpus.ingest.stage import ingest
from tasks.curate.validate.stage import EXAMPLES, validate


class TrialError(FlywheelError):
    """A stage would refuse the domain."""


def tried(name: str) -> list[str]:
    """Run ingest and validate on domains/NAME; nothing of the checkout is changed.

    Returns:
        What happened, as sentences.

    Raises:
        TrialError: a stage refuses the domain; the words are the stage's.
    """
    root = Path.cwd()
    settings = re.sub(r"^domain:.*$", f"domain: {name}", Path("params.yaml").read_text(encoding="utf-8"), flags=re.M)
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for path in (layout.DOMAINS, layout.PACKAGES, Path("infra")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(root / path)
        write_text(Path("params.yaml"), settings)
        try:
            said = [f"tried: ingest: {ingest(load_domain(name))}"]
            EXAMPLES.parent.mkdir(parents=True)
            EXAMPLES.symlink_to(Path.cwd() / layout.INGEST / "examples.parquet")
            write_text(layout.FEEDBACK / "preferences.jsonl", "")  # nobody has chosen yet
            return [*said, _validated(load_domain(name), root)]
        except FlywheelError as error:
            hint = "what validate refuses hangs on the bounds under `validate` in params.yaml"
            raise TrialError(f"a release of this domain would stop: {error}\n({hint})") from error


def _validated(domain: Domain, root: Path) -> str:
    params = load_params()
    if domain.base_model.terms in ("", *params.accepted_terms):
        _tokenizer(domain, root / layout.BASE_MODEL)
        return f"tried: validate: {validate()}"
    rows, least = len(read_records(EXAMPLES, Example)), params.validate_.min_rows
    if rows < least:
        raise TrialError(f"{rows} rows are left, fewer than validate.min_rows = {least}")
    return (
        f"not tried: validate, whose bounds are in tokens of {domain.base_model.name}: its terms are not accepted; "
        f"{rows} rows are left, and validate.min_rows = {least}"
    )


def _tokenizer(domain: Domain, built: Path) -> None:
    """Put the base model's tokenizer where validate looks for it."""
    from tasks.train.base_model.stage import assembled, checked_files, load_tokenizer, own_template

    with contextlib.suppress(FileNotFoundError):
        if domain.base_model.sha256 in (built / "NOTICE.txt").read_text(encoding="utf-8"):
            layout.BASE_MODEL.symlink_to(built)
            return
    with assembled(checked_files(domain)) as file:
        tokenizer = load_tokenizer(file)
    own_template(tokenizer, domain)
    tokenizer.save_pretrained(layout.BASE_MODEL)
    write_manifest(layout.BASE_MODEL)
