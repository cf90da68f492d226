"""Greedy answers as evaluations generate them, beside transformers' own batches of the same model.

    PYTHONPATH=. .venv/bin/python tests/bench/bench_evaluation.py [--folder FOLDER] [--rows 24]

FOLDER is a checkout that has evaluated a candidate (`make run`): the model, and the largest set that is answered, are
those of its last evaluation, in .flywheel/evaluation/candidate. Both sides run in the evaluation environment, one after
the other.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

from tasks.core import layout

SIDE = "--side"


def side(folder: Path, count: int) -> None:
    """Print, as JSON, seconds and texts of both; runs in the evaluation environment."""
    import time

    from tasks.evaluate.run.opencompass_model import AnswerModel

    config = runpy.run_path(str(folder / "config.py"))
    settings = {key: value for key, value in config["models"][0].items() if key not in ("type", "abbr", "run_cfg")}
    sets = [one for one in config["datasets"] if one["abbr"].endswith("_generation")]
    lines = {one["abbr"]: Path(one["path"]).read_text(encoding="utf-8").splitlines() for one in sets}
    chosen = max(sets, key=lambda one: len(lines[one["abbr"]]))
    rows = [json.loads(line)["text"] for line in lines[chosen["abbr"]]]
    most = chosen["infer_cfg"]["inferencer"]["max_out_len"]
    model, found = AnswerModel(**settings), {}
    for name, window in (("evaluation", model.window), ("transformers", 0)):
        model.window = window
        started = time.perf_counter()
        answers = model.generate(rows[:: max(1, len(rows) // count)][:count], max_out_len=most)
        found[name] = time.perf_counter() - started, answers
    print(json.dumps(found))


def main() -> None:
    """Ask both sides and show the table."""
    from tests.bench.table import ROOT, options, show

    given = options(__doc__, folder=str(ROOT), rows=24)
    folder = Path(given.folder).resolve() / layout.HOME / "evaluation/candidate"
    if not (folder / "config.py").is_file():
        sys.exit(f"{folder} holds no evaluation: run a release there (`make run`)")
    command = [str(ROOT / layout.EVALUATION_PYTHON), "-m", "tests.bench.bench_evaluation", SIDE]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder), str(given.rows)], env=surroundings, stdout=subprocess.PIPE, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    (ours, texts), (theirs, others) = found["evaluation"], found["transformers"]
    alike = sum(one == other for one, other in zip(texts, others, strict=True))
    rows = [("transformers' batches", f"{theirs:.1f}", "1.0", ""), ("evaluation", f"{ours:.1f}", f"{theirs / ours:.1f}",
            f"{alike} of {len(texts)}")]  # fmt: skip
    show(f"{len(texts)} answers of the last candidate", "side | seconds | times faster | the same text", rows)


if __name__ == "__main__":
    if SIDE in sys.argv:
        side(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
