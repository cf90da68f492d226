"""A model that lies elsewhere: no second copy, settings of its own, nothing of this machine in what is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.base_model import told
from tasks.core.files import ManifestError, verify_manifest
from tasks.train.base_model import hub
from tasks.train.base_model.folder import BaseModelError, examine
from tasks.train.base_model.stage import convert, in_words
from tasks.train.base_model.take import entry_digest, made_for
from tests.families import FAMILIES, lay_family, lay_tokenizer

PARAMETERS, SHARDS = 10**8, 4


def own_bytes(folder: Path) -> int:
    """What a folder takes on the disk itself, links as links."""
    return sum(path.lstat().st_blocks * 512 for path in folder.iterdir())


def test_the_weights_are_links_and_the_settings_say_pad_and_end_of_turn(with_model: Any, tmp_path: Path) -> None:
    origin, base = lay_family(tmp_path / "origin", "phi3"), tmp_path / "base"
    (origin / "NOTICE").write_text("Made by us.")
    domain = with_model(path=str(origin))
    before = {path.name: path.read_bytes() for path in origin.iterdir()}
    convert(domain, base)
    assert {path.name: path.read_bytes() for path in origin.iterdir()} == before
    config = json.loads((base / "config.json").read_text())
    vocabulary = json.loads((base / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in vocabulary}
    assert config["eos_token_id"] == [ids["<|end|>"], ids["<|endoftext|>"]]
    assert config["pad_token_id"] == ids["<|endoftext|>"]
    assert (base / "NOTICE.of_the_model.txt").read_text() == "Made by us."
    assert told(domain.base_model, base).licence == "apache-2.0"
    assert made_for(base) == entry_digest(domain.base_model)
    small = [path for path in base.iterdir() if path.suffix != ".safetensors"]
    assert not [path.name for path in small if path.is_symlink() or str(tmp_path) in path.read_text()]


def test_weights_that_change_or_go_are_noticed(with_model: Any, tmp_path: Path) -> None:
    origin, base = lay_family(tmp_path / "origin", "qwen2"), tmp_path / "base"
    convert(with_model(path=str(origin)), base)
    shard = min(origin.glob("model-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ManifestError, match=f"changed: {shard.name}"):
        verify_manifest(base)
    shard.unlink()
    with pytest.raises(ManifestError, match=f"missing: {shard.name}"):
        verify_manifest(base)


def test_a_snapshot_of_the_hub_is_taken_from_where_it_lies(
    with_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "HUB", tmp_path / "hub")
    monkeypatch.delenv(hub.NETWORK, raising=False)
    domain = with_model(hub="org/model", revision="a" * 40)
    assert "still to be fetched" in in_words(domain)
    with pytest.raises(BaseModelError, match="FLYWHEEL_NETWORK=1"):
        convert(domain, tmp_path / "base")
    lay_family(hub.place_of("org/model", "a" * 40), "llama")
    convert(domain, tmp_path / "base")
    notice = (tmp_path / "base/NOTICE.txt").read_text()
    assert f"Source: org/model on the Hugging Face hub, commit {'a' * 40}." in notice
    assert told(domain.base_model, tmp_path / "base").licence_url == "https://huggingface.co/org/model"
    assert in_words(domain).startswith("org/model, LlamaForCausalLM, 0.1 million parameters")


@pytest.mark.slow
def test_a_large_model_is_taken_without_a_second_copy(with_model: Any, tmp_path: Path) -> None:
    """The shards are sparse: their whole size is read and hashed, though nothing of it lies on the disk."""
    origin, base = tmp_path / "origin", tmp_path / "base"
    lay_large(origin)
    convert(with_model(path=str(origin)), base)
    facts = examine(base)
    assert facts.parameters == PARAMETERS
    assert sum(path.stat().st_size for path in facts.weights) > 2 * facts.parameters
    assert own_bytes(base) < 1 << 20
    verify_manifest(base)


def lay_large(folder: Path) -> None:
    """A folder as of a model of a hundred million parameters in bf16, in four sparse shards."""
    lay_tokenizer(folder, FAMILIES["qwen2"])
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "max_position_embeddings": 32768}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    names = {f"model.layers.{at}.mlp.up_proj.weight": f"model-0000{at}-of-00004.safetensors" for at in range(SHARDS)}
    numbers = PARAMETERS // SHARDS
    for name, file in names.items():
        head = json.dumps({name: {"dtype": "BF16", "shape": [numbers // 1000, 1000], "data_offsets": [0, 2 * numbers]}})
        with (folder / file).open("wb") as stream:
            stream.write(len(head).to_bytes(8, "little") + head.encode())
            os.truncate(stream.fileno(), 8 + len(head) + 2 * numbers)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
