"""Examples as token ids, encoded once: the processes of a run, its resumes and later runs read what one wrote.

A cache entry's name is a digest of all that shapes it: the tokenizer's files, the examples, the system prompt, the
limit and the code that encodes. An entry is one file, written whole or not at all, so that a kill leaves none by
halves and several processes may write it at once (they write the same).
Limits: a changed entry is found by its own checksum and made anew; the folder may be deleted any time.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.code import code_digest
from tasks.core.files import canonical_json, digest_of, sha256_bytes, sha256_file, write_bytes
from tasks.core.records import Example, read_own_jsonl
from tasks.train.tuning.batches import encode_rows

TOKENS = layout.CACHE / "tokens"
CODE = ("text", "train/tuning", "train/sft")
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja")

Rows = list[dict[str, Any]]


def cached_rows(tokenizer: Any, model: Path, data: Path, system: str, max_tokens: int) -> Rows:
    """Token ids and labels of each example of a file (batches.encode_rows), from the cache if it has them.

    `tokenizer` is the one in the folder `model`.

    Raises:
        PromptError: an example is longer than `max_tokens` or holds a special token.
    """
    path = entry_of(model, data, system, max_tokens)
    rows = _read(path)
    if rows is None:
        rows = encode_rows(tokenizer, system, read_own_jsonl(data, Example), max_tokens)
        content = canonical_json(rows).encode()
        write_bytes(path, sha256_bytes(content).encode() + b"\n" + content)
    return rows


def entry_of(model: Path, data: Path, system: str, max_tokens: int) -> Path:
    """The cache's file for these very rows."""
    files = sorted({path for pattern in TOKENIZER_FILES for path in model.glob(pattern)})
    tokenizer = {path.name: sha256_file(path) for path in files}
    libraries = [version("transformers"), version("tokenizers")]
    return TOKENS / digest_of([tokenizer, sha256_file(data), system, max_tokens, code_digest(*CODE), libraries])


def _read(path: Path) -> Rows | None:
    """An entry's rows; None where there is none, or one that is not what was written."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if sha256_bytes(content).encode() != checksum:
        return None
    rows: Rows = json.loads(content)
    return rows
