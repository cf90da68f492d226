"""Five nights in a row on the default release, ten corrections each: do they learn, and what do they lose?

    PYTHONPATH=. .venv/bin/python tests/bench/bench_nights.py [--folder FOLDER]

FOLDER is a checkout where `make run` has promoted a version; without it a clone of HEAD is made and released first.
The corrections are house rules of an invented firm, which no model can know. No engine and no browser is started: the
corrections are stored as the gateway stores them, and each night runs as it does where the platform is down. What was
finished is kept in FOLDER/.flywheel/bench_nights: started again, this goes on with the night it was stopped in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json, write_text
from tasks.core.intervals import paired_interval
from tasks.core.params import load_params
from tasks.core.records import Score, read_own_jsonl
from tasks.evaluate.gate.requirements import NIGHT, RELEASE
from tasks.registry.versions import Registry, Version
from tasks.store.answers import FeedbackIn, get_answer, record_feedback
from tasks.store.identities import create_identity, list_identities
from tasks.store.nights import last_nights
from tasks.store.schema import Night
from tests.answers import serve_answer
from tests.bench.table import ROOT, options, show
from tests.flows.feedback import store_of

NIGHTS, CORRECTIONS = 5, 10
LINKED = (".venv", ".venv-evaluation", ".venv-engine", ".flywheel/packages")
KEPT = layout.HOME / "bench_nights"
SCORES = layout.EVALUATION / "candidate/scores.jsonl"
JUDGED = ("promote", "hold", "reject")
# Columns of the table: a criterion of the gate, as candidate minus champion; of the corrections, the gain.
COLUMNS = {
    "feedback_said": "corrections in other words (share of their words)",
    "kept_said": "earlier ones and beside them (likewise)",
    "domain_rouge_l": "domain ROUGE-L",
    "facts_right": "right answers",
    "dialogue_nll": "dialogue NLL, to the champion before",
    "first": "dialogue NLL, to the first champion",
    "safety_withheld": "harmful requests not met (share)",
    "mmlu_p_correct": "MMLU, probability of the right answer",
}


def house_rules() -> list[dict[str, str]]:
    """Rules of the invented firm, fifty of them: `question`, `other_words` for it, and `answer`."""
    return list(map(json.loads, (ROOT / "tests/data/house_rules.jsonl").read_text(encoding="utf-8").splitlines()))


def clone(folder: Path) -> None:
    """HEAD, with what is expensive shared with this checkout."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    (folder / ".flywheel").mkdir()
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    if (ROOT / ".flywheel/cache").is_dir():
        shutil.copytree(ROOT / ".flywheel/cache", folder / ".flywheel/cache")
    run(folder, "-m", "dvc", "config", "--local", "cache.dir", str(ROOT / ".dvc/cache"))


def run(folder: Path, *command: str) -> str:
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
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def champion_of(folder: Path, domain: str) -> Version:
    """The champion there; before the first night also keeps its dialogue scores."""
    champion, kept = Registry(domain, folder).alias("champion"), folder / KEPT / "first.jsonl"
    if champion is None:
        sys.exit(f"{folder} has no champion yet: `make run` there makes one, where its verdict is promote")
    if not kept.exists():
        judged = json.loads((folder / layout.VERDICT).read_text(encoding="utf-8"))["candidate"]["digest"]
        if judged != champion.manifest:
            sys.exit(f"the reports in {folder} are not of version {champion.number}, its champion: run a release there")
        write_text(kept, (folder / SCORES).read_text(encoding="utf-8"))
    return champion


def correct(folder: Path, domain: str, number: int, champion: Version) -> Night | None:
    """Store the corrections of one night, once; returns the night of the project that took them up, if one did."""
    rules = house_rules()[(number - 1) * CORRECTIONS : number * CORRECTIONS]
    name, served = f"bench night {number}", {"version": champion.number, "digest": champion.manifest}
    with store_of(folder) as store:
        known = [person for person in list_identities(store) if person.name == name]
        person = known[0] if known else create_identity(store, name, "chat")[0]
        for place, rule in enumerate(rules):
            key = f"chatcmpl-bench-{number}-{place}"
            if get_answer(store, key) is None:
                asked = [{"role": "user", "content": rule["question"]}]
                serve_answer(store, person, id=key, domain=domain, messages=asked, text="I do not know.", **served)
            given = FeedbackIn(key, key, "correction", text=rule["answer"], other_words=rule["other_words"])
            said, _ = record_feedback(store, person, given)
        return next((night for night in last_nights(store, domain, 100) if night.number == said.night), None)


def one_night(folder: Path, number: int) -> dict[str, Any]:
    """Corrections, the night and what came of it; a night that ended before it could be noted is not run again."""
    domain = load_params(folder / layout.PARAMS).domain
    night = correct(folder, domain, number, champion_of(folder, domain))
    if night is None or night.outcome in (None, "failed"):
        run(folder, "-m", "flows.run", "--nightly")
        with store_of(folder) as store:
            night = last_nights(store, domain, 1)[0]
    assert night.closed_at is not None, f"night {night.number} has not ended"
    minutes = (night.closed_at - night.started_at).total_seconds() / 60
    found = differences(folder) if night.outcome in JUDGED else {}
    return {"night": number, "verdict": night.outcome, "reason": night.reason, "minutes": minutes, **found}


def differences(folder: Path) -> dict[str, tuple[float, float, float]]:
    """Column → (estimate, low, high), of the night that ended last."""
    verdict = json.loads((folder / layout.VERDICT).read_text(encoding="utf-8"))
    found = {each["name"]: signed(each) for each in verdict["criteria"]}
    sides = [
        {row.id: row.value for row in read_own_jsonl(path, Score) if row.set == "dialogue"}
        for path in (folder / SCORES, folder / KEPT / "first.jsonl")
    ]
    after, first = ([side[item] for item in sorted(sides[0])] for side in sides)
    params = load_params(folder / layout.PARAMS)
    to_first = paired_interval(after, first, level=0.95, resamples=params.gate.resamples, seed=params.seed)
    return found | {"first": (to_first.estimate, to_first.low, to_first.high)}


def signed(criterion: dict[str, Any]) -> tuple[float, float, float]:
    """A criterion as candidate minus champion, where the gate tells gain or loss."""
    name = criterion["name"].split("_since_")[0]
    ends = (criterion["estimate"], criterion["low"], criterion["high"])
    higher = next(each.higher_is_better for each in (*NIGHT, *RELEASE) if each.name == name)
    return ends if higher == (criterion["kind"] == "superiority") else (-ends[0], -ends[2], -ends[1])


def row_of(night: dict[str, Any]) -> list[str]:
    """A night's row of the table."""
    cells = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*night[name]) if name in night else "–" for name in COLUMNS]
    return [str(night["night"]), night["verdict"], *cells, f"{night['minutes']:.0f}"]


def main() -> None:
    """Run the nights that are missing, and print the table after each."""
    given = options(__doc__, folder="").folder
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # the folder's own registry counts
    folder = Path(given or Path(tempfile.mkdtemp(prefix="nights-")) / "flywheel").resolve()
    if not given:
        clone(folder)
        run(folder, "-m", "flows.run")
    kept = folder / KEPT / "nights.json"
    nights = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    for number in range(len(nights) + 1, NIGHTS + 1):
        nights.append(one_night(folder, number))
        write_json(kept, nights)
        print(f"night {number} in {folder}: {nights[-1]['verdict']}. {nights[-1]['reason']}", flush=True)
    show("Nights", ("night", "verdict", *COLUMNS.values(), "minutes"), map(row_of, nights))


if __name__ == "__main__":
    main()
