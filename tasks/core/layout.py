"""Where every file of the pipeline lives, relative to the repository root (the working directory of every stage)."""

from __future__ import annotations

import os
from pathlib import Path

PARAMS = Path("params.yaml")
DOMAINS = Path("domains")
STATE = Path("state")
CHAMPION_POINTER = STATE / "champion.json"
FEEDBACK_POINTER = STATE / "feedback.json"

LOCKS = Path("infra/locks")
MAIN_PYTHON = Path(".venv/bin/python")
EVALUATION_PYTHON = Path(".venv-evaluation/bin/python")
ENGINE_PYTHON = Path(".venv-engine/bin/python")

# Embedded state: never in git, never a stage's output.
HOME = Path(".flywheel")
PACKAGES = HOME / "packages"
HUB = HOME / "hub"  # snapshots of base models, by name and revision
CHECKPOINTS = HOME / "checkpoints"
CACHE = HOME / "cache"
TEACHER_CACHE = CACHE / "teacher"
WEIGHTS = HOME / "weights"
EMBEDDERS = HOME / "embedders"  # made from packages that hold their weights in another form
LOGS = HOME / "logs"
WORKSPACES = HOME / "workspaces"
STORE = HOME / "store"
PLATFORM_UP = HOME / "platform" / "up.json"  # there from the beginning of `make up` to the end of `make down`
MEASURED = HOME / "measured"  # what each training stage last took: seconds, memory, energy
SECRETS = HOME / "secrets"
FEEDBACK_SNAPSHOTS = HOME / "feedback"

BASE_MODEL = Path("data/base_model")
CHAMPION = Path("data/champion")
ANCHOR = CHAMPION / "anchor"
START = Path("data/start")
FEEDBACK = Path("data/feedback")
INGEST = Path("data/ingest")
EVALUATION_ITEMS = INGEST / "evaluation"
RETRIEVER = Path("data/retriever")
INDEX = Path("data/index")
CONSTRUCT = Path("data/construct")
VALIDATE = Path("data/validate")
EMBED = Path("data/embed")
DEDUP = Path("data/dedup")
SELECT = Path("data/select")
MIX = Path("data/mix")
CORRECTIONS = Path("data/corrections")
CORRECTION_ITEMS = CORRECTIONS / "feedback.jsonl"
KEPT_ITEMS = CORRECTIONS / "kept.jsonl"

PAIRS = Path("data/pairs")
PRETRAIN = Path("models/pretrain")
SFT = Path("models/sft")
REWARD = Path("models/reward")
ALIGN = Path("models/align")
PACKAGE = Path("models/package")

REPORTS = Path("reports")
METRICS = REPORTS / "metrics"  # a few figures a stage, for `dvc metrics`
DETAILS = REPORTS / "details"  # all that the stages counted
PLOTS = REPORTS / "plots"
EVALUATION = REPORTS / "evaluation"
RECEIPT = REPORTS / "receipt.parquet"
VERDICT = REPORTS / "verdict.json"
CARD_HTML = REPORTS / "release_card.html"
CARD_MARKDOWN = REPORTS / "release_card.md"
DATA_DOCS = REPORTS / "data_docs"
ESTIMATE = REPORTS / "estimate.json"

EVALUATION_SETS = ("domain", "declining", "dialogue", "mmlu", "safety")
OPTIONAL_SETS = ("declining", "mmlu", "safety")  # those that a domain may go without

# The libraries below call home, look for a newer version of themselves or talk of it unless they are told not to.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child process: ours, offline, with this environment's own tools first on PATH."""
    tools = str(MAIN_PYTHON.parent.absolute())
    path = os.pathsep.join([tools, os.environ.get("PATH", "")])
    return {**os.environ, **OFFLINE, "PATH": path, **extra}


def home() -> Path:
    """The repository that is worked on: FLYWHEEL_ROOT, or the working directory."""
    return Path(os.environ.get("FLYWHEEL_ROOT") or ".").absolute()
