"""A whole project in miniature: the stages of the real graph that the flow depends on, each done in a few lines.

`make_toy` lays it out in a folder as a git and DVC repository; `python -m tests.flows.toy STAGE` is what its dvc.yaml
runs. The candidate is "trained" by writing its settings down, so that equal settings give equal packages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]

STAGES: dict[str, dict] = {
    "base_model": {"outs": ["data/base_model"]},
    "champion": {"deps": ["state/champion.json", "data/base_model/MANIFEST.json"], "outs": ["data/champion"]},
    "mix": {
        "deps": ["domains/toy", "state/feedback.json"],
        "outs": ["data/feedback", "data/ingest", "data/validate", "data/mix", "reports/receipt.parquet"],
    },
    "sft": {"deps": ["data/mix", "data/base_model", "state/feedback.json"], "params": ["sft"], "outs": ["models/sft"]},
    "package": {"deps": ["models/sft", "state/feedback.json"], "outs": ["models/package", "data/start"]},
    "evaluate_candidate": {"deps": ["models/package"], "outs": ["reports/evaluation/candidate"]},
    "evaluate_champion": {"deps": ["data/champion"], "outs": ["reports/evaluation/champion"]},
    "gate": {
        "deps": [
            "data/champion",
            "data/start",
            "models/package",
            "reports/evaluation/candidate",
            "reports/evaluation/champion",
            "wanted.json",
        ],
        "outs": [{"reports/verdict.json": {"cache": False}}],
    },
}


def make_toy(folder: Path) -> Path:
    """Lay the project out in `folder`, committed; returns it."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["nightly"]["min_examples"] = 5
    params["gate"]["level"] = 0.9  # at which five corrections can be judged
    files = {
        # Nothing listens on port 9: no gateway to wait for.
        "params.yaml": yaml.safe_dump({**params, "domain": "toy", "serving": {**params["serving"], "port": 9}}),
        "dvc.yaml": yaml.safe_dump({"stages": {name: _stage(name, fields) for name, fields in STAGES.items()}}),
        "domains/toy/domain.yaml": yaml.safe_dump(_domain()),
        "domains/toy/source.txt": "text\n",
        "domains/toy/prompts/system.txt": "Be kind.\n",
        "state/champion.json": '{"kind": "base", "version": "base", "digest": null}\n',
        "state/feedback.json": '{"count": 0, "digest": null, "watermark": null}\n',
        "infra/locks/main.txt": "click==8.3.1\n",
        "wanted.json": '{"outcome": "promote", "sleep": 0}\n',
        ".dvc/config": "",
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",  # these two as `dvc init` writes them, without its 2 s
        ".gitignore": "/.flywheel/\n/data/\n/models/\n/reports/\n/.venv\n/.venv-evaluation\n__pycache__/\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    shutil.copytree(REPOSITORY / "infra", folder / "infra", ignore=shutil.ignore_patterns("*.txt"), dirs_exist_ok=True)
    for command in (["git", "init", "-q", "-b", "main"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=folder, check=True)
    commit(folder, "start")
    return folder


def _domain() -> dict:
    """The default domain's own description, each source one small file of the domain's folder."""
    domain = yaml.safe_load((REPOSITORY / "domains/construction/domain.yaml").read_text())
    for key in ("base_model", "human", "general", "mmlu", "safety"):
        for source in domain[key] if isinstance(domain[key], list) else [domain[key]]:
            source |= {"package": "", "files": ["source.txt"]}
    for key in ("evaluation_files", "rewordings", "knowledge", "seeds", "documents", "triples"):
        domain.pop(key, None)
    domain["embedder"] = {"name": "characters"}
    return {**domain, "name": "toy", "system_prompt": "prompts/system.txt"}


def _stage(name: str, fields: dict) -> dict:
    module = "tasks.train.champion.stage" if name == "champion" else f"tests.flows.toy {name}"
    return {"cmd": f"{sys.executable} -m {module}", **fields}


def environment(folder: Path) -> dict[str, str]:
    """What processes of the project need: this repository's code, quiet, offline."""
    live = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "FLYWHEEL_DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if name not in live}
    ours = {"PYTHONPATH": str(REPOSITORY), "FLYWHEEL_ROOT": str(folder), "DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}
    return kept | ours


def commit(folder: Path, message: str) -> str:
    """Commit everything in the project; returns the commit."""
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *who, "commit", "-qam", message], cwd=folder, check=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()


def set_wanted(folder: Path, **wanted: object) -> None:
    """Tell the gate which outcome to reach, and stages how to behave."""
    path = folder / "wanted.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wanted}))


def set_param(folder: Path, section: str, key: str, value: object) -> None:
    """Change one setting."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def _write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def _base_model() -> None:
    from tasks.core.files import write_manifest

    _write("data/base_model/model.txt", "base weights")
    write_manifest(Path("data/base_model"))


def _mix() -> None:
    """The data stages in one: each DVC command costs 2 s."""
    import pyarrow
    import pyarrow.parquet

    from tasks.core.records import Receipt
    from tasks.core.tables import table_of
    from tasks.curate.receipt.stage import content_schema, join

    item = {"id": "1", "set": "domain", "prompt": "What is <b>safe</b>?", "reference": "Escaping."}
    _write("data/ingest/evaluation/domain.jsonl", json.dumps(item) + "\n")
    _write("data/validate/results/human.json", json.dumps({"success": True, "results": []}))
    settings = ("language", "languages", "min_language_confidence", "min_output_tokens", "max_total_tokens")
    more = ("special_tokens", "evaluation", "min_groundedness")
    _write("data/validate/parameters.json", json.dumps(dict.fromkeys((*settings, *more), 1)))
    _write("data/mix/train.jsonl", "{}\n")
    said = _corrections()
    # The real stages would take some for leaks.
    learnable = [row["id"] for row in said if not row["text"].startswith("Leak.")]
    _write("data/feedback/facts.json", json.dumps({"new_examples": len(said), "dropped": {}}))
    _write("reports/details/mix.json", json.dumps({"corrections": len(learnable)}))
    _write("reports/plots/data_counts.csv", "stage,examples\nread,4\nkept,3\n")
    steps = [Receipt(example_id=name, stage="mix", kept=name == "a", reason="said") for name in "ab"]
    learnt = {"stage": "feedback", "kept": True, "reason": "corrected"}
    steps += [Receipt(example_id=f"of {name}", detail=name, **learnt) for name in learnable]
    trained = pyarrow.array(["a", *(f"of {name}" for name in learnable)])
    rows = join(table_of(steps, Receipt), content_schema().empty_table(), trained)
    pyarrow.parquet.write_table(rows, "reports/receipt.parquet")


def _corrections() -> list[dict]:
    """The new corrections of the snapshot."""
    pointer = json.loads(Path("state/feedback.json").read_text())
    path = Path(f".flywheel/feedback/{pointer['digest']}/rows.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()] if pointer["digest"] else []
    return [row for row in rows if row["night"] > pointer["since"]]


def _sft() -> None:
    sft = yaml.safe_load(Path("params.yaml").read_text())["sft"]
    wanted = json.loads(Path("wanted.json").read_text())
    print("epoch 1 of 1", flush=True)
    if wanted["sleep"]:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        worker = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        Path("worker.pid").write_text(str(worker.pid))
        end = time.monotonic() + float(wanted["sleep"])
        while time.monotonic() < end and not Path("go").exists():
            time.sleep(0.1)
    if wanted.get("fail"):
        sys.exit("sft: out of memory on purpose")
    feedback = json.loads(Path("state/feedback.json").read_text())
    learnt = {key: feedback[key] for key in ("count", "digest")}
    _write("models/sft/adapter/adapter_model.safetensors", json.dumps([sft, learnt], sort_keys=True))
    _write("reports/details/sft.json", json.dumps({"loss": 2.5, "by_split": {"train": 2.5}}))
    _write("reports/plots/sft_loss.csv", "step,split,loss\n0,train,3.0\n10,train,2.5\n")


def _package() -> None:
    """The stages `package` and `start`."""
    from tasks.core.files import verify_manifest, write_json, write_manifest
    from tasks.train.start.stage import start

    start()
    shutil.copytree("models/sft/adapter", "models/package/adapter")
    write_json(Path("models/package/base.json"), {"digest": verify_manifest(Path("data/base_model"))})
    write_json(Path("models/package/prompt.json"), {"system": "Be kind."})
    write_manifest(Path("models/package"))


def _evaluate_candidate() -> None:
    _write(
        "reports/evaluation/candidate/answers.jsonl",
        json.dumps({"id": "1", "text": "<script>alert(1)</script>"}) + "\n",
    )


def _evaluate_champion() -> None:
    _write("reports/evaluation/champion/answers.jsonl", json.dumps({"id": "1", "text": "It is safe."}) + "\n")


def _gate() -> None:
    from tasks.core.files import verify_manifest
    from tasks.evaluate.gate.stage import asked_of

    wanted = json.loads(Path("wanted.json").read_text())
    champion = json.loads(Path("data/champion/champion.json").read_text())
    passed = wanted["outcome"] == "promote"
    criterion = {
        "name": wanted.get("criterion", "domain_rouge_l"),
        "kind": "superiority",
        "unit": "ROUGE-L",
        "n": 10,
        "estimate": 0.03,
        "low": 0.01,
        "high": 0.05,
        "level": 0.95,
        "margin": 0.0,
        "passed": passed,
        "reason": "the interval lies above zero",
    }
    verdict = {
        "outcome": wanted["outcome"],
        "asked": asked_of(corrections=bool(_corrections()))[0],
        "candidate": {"version": "candidate", "digest": verify_manifest(Path("models/package"))},
        "champion": {"version": champion["version"], "digest": champion["digest"]},
        "criteria": [criterion],
        "reasons": [f"told to {wanted['outcome']}"],
    }
    _write("reports/verdict.json", json.dumps(verdict, sort_keys=True))
    rows = "domain,rouge_l,champion,0.12,0.10,0.14\ndomain,rouge_l,candidate,0.15,0.13,0.17\n"
    _write("reports/plots/scores.csv", "set,metric,who,value,low,high\n" + rows)


if __name__ == "__main__":
    globals()[f"_{sys.argv[1]}"]()
