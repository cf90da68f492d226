"""What an online training must remember besides weights and optimiser: value head, price of a nat, last good policy.

Needs torch and transformers: import it in a worker process only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from tasks.core.files import write_json
from tasks.train.run.held_weights import VALUE_HEAD, whole

TENSORS, NUMBERS = "online.safetensors", "online.json"
GOOD, HEAD = "good.", "head."


class KeepOnlineState(TrainerCallback):
    """Adds it to every checkpoint; give it to the trainer before the callback that marks them complete."""

    trainer: Any  # is built after its callbacks, and set then

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All processes gather, the first writes."""
        head = value_head(self.trainer)
        with whole(list(head.values())):
            tensors = {HEAD + name: p.detach().clone().contiguous() for name, p in head.items()}
        tensors |= {GOOD + name: tensor.contiguous() for name, tensor in self.trainer.last_good.items()}
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file(tensors, folder / TENSORS)
            if hasattr(self.trainer, "kl"):
                write_json(folder / NUMBERS, {"kl_coefficient": self.trainer.kl.coefficient})


def value_head(trainer: Any) -> dict[str, Any]:
    """The parameters of a policy's value head by name; RLOO and GRPO have none."""
    head = getattr(trainer.policy, VALUE_HEAD, None)
    return dict(head.named_parameters()) if head is not None else {}


@torch.no_grad()
def restore(trainer: Any, checkpoint: Path) -> None:
    """Give a new trainer what a checkpoint remembers; call it in every process, before `train`."""
    device = trainer.args.device
    tensors = load_file(checkpoint / TENSORS)
    head = value_head(trainer)
    with whole(list(head.values()), write=True):
        for name, p in head.items():
            p.copy_(tensors[HEAD + name])
    trainer.last_good = {
        name.removeprefix(GOOD): tensor.to(device) for name, tensor in tensors.items() if name.startswith(GOOD)
    }
    if (checkpoint / NUMBERS).is_file():
        trainer.kl.coefficient = json.loads((checkpoint / NUMBERS).read_text())["kl_coefficient"]
