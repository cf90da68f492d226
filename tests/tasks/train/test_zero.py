"""ZeRO only shares out what a process keeps: each stage, with offload and without, learns the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.train.run.launch import environment, read_launch

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "infra/deepspeed").glob("cpu_*.json"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Losses and weights by file, of two processes that train under all of them one after another."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    out = tmp_path_factory.mktemp("zero")
    set_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, tie_word_embeddings=False))
    model.save_pretrained(out / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        env = environment(read_launch("cpu"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.zero_worker", str(out), str(out / "model"), *map(str, FILES)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return {path.stem: json.loads((out / f"{path.stem}.json").read_text()) for path in FILES}


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_three_steps_under_each_file_give_the_losses_and_weights_of_zero_1(
    trained: dict[str, dict[str, Any]], name: str
) -> None:
    expected, found = trained["cpu_zero1"], trained[name]
    assert len(found["losses"]) == 3 and found["losses"][2] < found["losses"][0]
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-4)
    assert found["weights"] == pytest.approx(expected["weights"], rel=1e-5)
    assert found["count"] == 2 * 64 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
