"""The whole loop, once, by hand: up, ten corrections in the chat page, a night, what was learnt, trace, rollback, down.

Works in a clone of HEAD in a temporary folder, with this checkout's environments and caches, so that nothing of it
stays. Needs Chromium, free ports, and `make run` done here before (else the release in the clone takes its time).
The corrections are house rules of an invented firm, which no model can know.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from openai import OpenAI
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from tests.e2e.page_browser import CHROMIUM, QUIET, ask, saved

ROOT = Path(__file__).resolve().parents[2]
LINKED = (".venv", ".venv-evaluation", ".venv-engine", ".flywheel/packages")


def house_rules() -> list[tuple[str, str]]:
    """(question, answer) of each rule of the invented firm, fifty of them."""
    lines = (ROOT / "tests/data/house_rules.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["question"], row["answer"]) for row in map(json.loads, lines)]


RULES = dict(house_rules()[:10])


def clone(folder: Path) -> None:
    """HEAD, with what is expensive shared with this checkout."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    (folder / ".flywheel").mkdir()
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    if (ROOT / ".flywheel/cache").is_dir():
        shutil.copytree(ROOT / ".flywheel/cache", folder / ".flywheel/cache")
    run(folder, "-m", "dvc", "config", "--local", "cache.dir", str(ROOT / ".dvc/cache"))


def run(folder: Path, *command: str, check: bool = True) -> str:
    """Run Python in the clone; returns what it printed."""
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_", "FLYWHEEL_"))}
    done = subprocess.run(
        [str(ROOT / ".venv/bin/python"), *command],
        cwd=folder,
        env={**surroundings, "FLYWHEEL_ROOT": str(folder), "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def verb(folder: Path, *words: str, check: bool = True) -> Any:
    """A verb of the command line, its answer as JSON."""
    said = run(folder, "-m", "flywheel", *words, "--json", check=check)
    return json.loads(said[said.index("{") :])


def correct_all(address: str) -> None:
    """Ask each question in the chat page and correct its answer."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        page = browser.new_context(locale="en-US").new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector(".fw-welcome h2")
        for question, rule in RULES.items():
            correct_one(page, question, rule)
        browser.close()


def correct_one(page: Page, question: str, rule: str) -> None:
    """A conversation of its own: a question, its answer, the correction."""
    ask(page, question)
    page.get_by_role("button", name="Correct").last.click()
    page.fill("#fw-words textarea", rule)
    page.keyboard.press("Control+Enter")
    saved(page)
    page.click("#fw-new")
    page.wait_for_selector(".fw-welcome h2")
    page.wait_for_timeout(500)  # the question box is emptied last


def answers(address: str, key: str) -> dict[str, Any]:
    """Question → completion, through the public client."""
    client = OpenAI(base_url=f"{address}/v1", api_key=key)
    model = client.models.list().data[0].id
    return {
        question: client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=64
        )
        for question in RULES
    }


def agreement(found: dict[str, Any]) -> float:
    """Mean share of characters that the answers have in common with the rules, in order."""
    ratios = [
        SequenceMatcher(None, str(reply.choices[0].message.content), RULES[question], autojunk=False).ratio()
        for question, reply in found.items()
    ]
    return sum(ratios) / len(ratios)


def main() -> None:
    """Walk the loop and print what was seen."""
    rows: list[tuple[str, str]] = []
    began = time.monotonic()

    def note(what: str, seen: str = "") -> None:
        nonlocal began
        rows.append((what, seen or f"{time.monotonic() - began:.1f} s"))
        print(f"{rows[-1][0]}: {rows[-1][1]}", flush=True)
        began = time.monotonic()

    folder = Path(tempfile.mkdtemp(prefix="loop-")) / "flywheel"
    clone(folder)
    run(folder, "-m", "flows.run")
    note("clone and release (cached where it was made here)")
    up = verb(folder, "up")
    note("make up")
    try:
        walk(folder, up, note)
    finally:
        run(folder, "-m", "flywheel", "down", check=False)
        note("make down")
    table = Table("step", "seen", title="the loop")
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)
    shutil.rmtree(folder.parent, ignore_errors=True)


def walk(folder: Path, up: dict[str, Any], note: Any) -> None:
    """What happens between up and down."""
    address, key = re.match(r"(.*)/login\?key=(.*)", up["chat"]).groups()  # type: ignore[union-attr]
    before = answers(address, key)
    note("ten answers before")
    correct_all(up["chat"])
    note("ten corrections in the page")
    night = verb(folder, "nightly", check=False)
    note("flywheel nightly, to its verdict and served")
    note("the night", f"{night.get('outcome')}: {night.get('reason')}")
    after = answers(address, key)
    note("agreement with the corrections", f"{agreement(before):.3f} before, {agreement(after):.3f} after")
    for question, reply in after.items():
        print(f"  {question}\n    {reply.choices[0].message.content}", flush=True)
    last = next(iter(after.values()))
    story = verb(folder, "trace", last.id)
    note("flywheel trace of a new answer", f"version {story['version']}, {story['corrections_learnt']} corrections")
    if story["corrections"]:
        note("the correction behind it", f"{story['corrections'][0]['correction']}")
    if night.get("outcome") == "promote":
        went = time.monotonic()
        back = verb(folder, "rollback")
        note("flywheel rollback, to served", f"{time.monotonic() - went:.1f} s, served {back['served']}")


if __name__ == "__main__":
    main()
