"""The engine on this machine: until ready, and tokens a second alone and at once, with and without an adapter.

Run by `make bench`; needs data/base_model and, for the second half, models/package. Nothing else should be running.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from tasks.core import layout
from tasks.core.params import load_params
from tasks.core.processes import free_port
from tasks.engine.client import BASE, Engine
from tasks.engine.process import EngineProcess

TOKENS = 64
ADAPTER = layout.PACKAGE / "adapter"


def answer(client: OpenAI, model: str, number: int) -> int:
    """Tokens of one answer, which always has TOKENS of them."""
    reply = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"Tell me about building permits, part {number}."}],
        max_tokens=TOKENS,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    return reply.usage.completion_tokens if reply.usage else 0


def speed(client: OpenAI, model: str, together: int) -> float:
    """Tokens a second of `together` answers at once, after one that warms up."""
    answer(client, model, -together)
    began = time.perf_counter()
    with ThreadPoolExecutor(together) as pool:
        tokens = sum(pool.map(lambda number: answer(client, model, number), range(together)))
    return tokens / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    table = Table("model", "1 at a time", "4 at once", "16 at once", title="tokens a second")
    settings = load_params().engine
    began = time.perf_counter()
    with EngineProcess(settings, layout.BASE_MODEL, Path(), free_port(), "engine-bench") as process:
        ready = time.perf_counter() - began
        client = OpenAI(base_url=f"{process.url}/v1", api_key="none", timeout=600)
        models = [BASE]
        loaded = float("nan")
        if ADAPTER.is_dir():
            began = time.perf_counter()
            with Engine(process.url) as engine:
                engine.load_adapter("adapter", ADAPTER)
            loaded = time.perf_counter() - began
            models.append("adapter")
        for model in models:
            table.add_row(model, *(f"{speed(client, model, together):.1f}" for together in (1, 4, 16)))
    Console(width=100).print(table)
    print(f"{settings.kind}, {settings.precision}: ready after {ready:.1f} s; adapter loaded in {loaded:.2f} s")


if __name__ == "__main__":
    main()
