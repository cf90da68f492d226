"""One of two processes that train a very small model three steps under every DeepSpeed file named on its command line.

Started by torchrun: OUT MODEL FILE… ; the first process leaves OUT/<file's name>.json with losses and saved weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def train(model_folder: str, config: Path, out: Path) -> dict[str, Any]:
    """Three steps on the same four rows; losses of the first process, and a sum over the saved weights."""
    from accelerate.state import AcceleratorState
    from datasets import Dataset
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    AcceleratorState._reset_state(reset_partial_state=False)
    arguments = TrainingArguments(
        output_dir=str(out / config.stem),
        max_steps=3,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        per_device_train_batch_size=2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo",
        deepspeed=str(config),
    )
    rows = [[row + 1, 2 * row + 1, 3, 4 + row] for row in range(4)]
    data = Dataset.from_list([{"input_ids": row, "labels": row} for row in rows])
    trainer = Trainer(AutoModelForCausalLM.from_pretrained(model_folder), arguments, train_dataset=data)
    trainer.train()
    trainer.save_model(str(out / config.stem))
    if not trainer.is_world_process_zero():
        return {}
    saved = load_file(out / config.stem / "model.safetensors")
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "weights": sum(float(tensor.double().abs().sum()) for tensor in saved.values()),
        "count": sum(tensor.numel() for tensor in saved.values()),
    }


def main() -> None:
    """Every file in turn, in the same processes."""
    import torch.distributed

    from tasks.train.run.worker import quiet

    quiet()
    out, model_folder, *configs = sys.argv[1:]
    for config in map(Path, configs):
        found = train(model_folder, config, Path(out))
        if found:
            (Path(out) / f"{config.stem}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # gloo's threads must end before the interpreter does, or it aborts


if __name__ == "__main__":
    main()
