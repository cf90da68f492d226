"""Stage `receipt`: what became of every example ever seen, joined from the parts the data stages wrote."""

from __future__ import annotations

from pathlib import Path

from tasks import layout
from tasks.errors import FlywheelError
from tasks.records import Example, Receipt, read_own_jsonl
from tasks.stage import run_stage

STAGE = "receipt"
# In the order in which examples pass them.
PARTS = (layout.INGEST, layout.FEEDBACK, layout.CONSTRUCT, layout.VALIDATE, layout.DEDUP, layout.SELECT, layout.MIX)


class ReceiptError(FlywheelError):
    """The parts do not add up."""


def join(parts: list[list[Receipt]], trained: set[str]) -> list[dict[str, object]]:
    """One row an example: its story in order, whether it was trained on, and the last word on it.

    Raises:
        ReceiptError: an example is trained on that no part, or not the last, let through.
    """
    story: dict[str, list[Receipt]] = {}
    for part in parts:
        for receipt in part:
            story.setdefault(receipt.example_id, []).append(receipt)
    rows: list[dict[str, object]] = []
    for identity in sorted(story):
        steps = story[identity]
        last = next((step for step in steps if not step.kept), steps[-1])
        rows.append(
            {
                "example_id": identity,
                "trained": identity in trained,
                "last_stage": last.stage,
                "reason": last.reason,
                "detail": last.detail,
                "score": last.score,
                "story": [step.model_dump(mode="json") for step in steps],
            }
        )
    unaccounted = trained - {identity for identity, steps in story.items() if steps[-1].kept}
    if unaccounted:
        raise ReceiptError(
            f"{len(unaccounted)} trained examples have no receipt that keeps them, first {min(unaccounted)}"
        )
    return rows


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    """Write the rows whole or not at all; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.files import write_bytes

    step = pa.struct(
        [("example_id", pa.string()), ("stage", pa.string()), ("kept", pa.bool_()), ("reason", pa.string())]
        + [("detail", pa.string()), ("score", pa.float64())]
    )
    schema = pa.schema(
        [("example_id", pa.string()), ("trained", pa.bool_()), ("last_stage", pa.string()), ("reason", pa.string())]
        + [("detail", pa.string()), ("score", pa.float64()), ("story", pa.list_(step))]
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    write_bytes(path, buffer.getvalue().to_pybytes())


def receipt() -> str:
    """Join the parts into reports/receipt.parquet; returns what happened, in a sentence."""
    parts = [read_own_jsonl(folder / "receipt.jsonl", Receipt) for folder in PARTS]
    trained = {example.id for example in read_own_jsonl(layout.MIX / "train.jsonl", Example)}
    rows = join(parts, trained)
    write_parquet(layout.RECEIPT, rows)
    return f"{len(rows)} examples accounted for, {len(trained)} of them trained on"


if __name__ == "__main__":
    run_stage(STAGE, receipt)
