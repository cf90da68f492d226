"""The engine on this machine: until ready, and tokens a second alone and at once, with and without an adapter.

Run by `make bench`; needs data/base_model and, for the second half, models/package. Nothing else should be running.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import OpenAI

from tasks.core import layout
from tasks.core.params import load_params
from tasks.core.processes import free_port
from tasks.engine.client import BASE, Engine
from tasks.engine.process import EngineProcess
from tests.bench.table import show

TOKENS = 64
TOGETHER = (1, 4, 16)
ADAPTER = layout.PACKAGE / "adapter"


def speed(client: OpenAI, model: str, together: int) -> float:
    """Tokens a second of so many answers at once, each of TOKENS, after one that warms up."""

    def answer(number: int) -> int:
        reply = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": f"Tell me about building permits, part {number}."}],
            max_tokens=TOKENS,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
        return reply.usage.completion_tokens if reply.usage else 0

    answer(-together)
    began = time.perf_counter()
    with ThreadPoolExecutor(together) as pool:
        return sum(pool.map(answer, range(together))) / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    settings, models = load_params().engine, [BASE]
    began = time.perf_counter()
    with EngineProcess(settings, layout.BASE_MODEL, Path(), free_port(), "engine-bench") as process:
        ready = time.perf_counter() - began
        client = OpenAI(base_url=f"{process.url}/v1", api_key="none", timeout=600)
        if ADAPTER.is_dir():
            with Engine(process.url) as engine:
                engine.load_adapter("adapter", ADAPTER)
            models.append("adapter")
        rows = [(model, *(f"{speed(client, model, count):.1f}" for count in TOGETHER)) for model in models]
    title = f"tokens a second; {settings.kind}, {settings.precision}, ready after {ready:.1f} s"
    show(title, ("model", *(f"{count} at once" for count in TOGETHER)), rows)


if __name__ == "__main__":
    main()
