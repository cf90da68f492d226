"""Which methods and alignments run together, and where; `python -m tests.matrix` writes docs/matrix.md.

The product of all takes more than an hour on two cores. So `make test` runs the default, and an alignment that is
switched on after it and off again; `make matrix` runs the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import ValidationError

from tasks.core.params import Params
from tasks.core.training_params import METHODS, ONLINE, Alignment, Method
from tests.checkout import update

PAGE = Path("docs/matrix.md")
SETTINGS = Path(__file__).parents[1] / "params.yaml"
ALIGNMENTS = get_args(Alignment)
SERVED_AS = {name: facts.served_as for name, facts in METHODS.items()}


class Cell(NamedTuple):
    """A method of SFT, and an alignment that goes on by the same method."""

    method: Method
    alignment: Alignment

    @property
    def stages(self) -> list[str]:
        """The stages that train."""
        aligned = [*(["reward"] if self.alignment in ONLINE else []), "align"]
        return ["sft", *([] if self.alignment == "none" else aligned)]

    def settings(self) -> dict[str, Any]:
        """What of params.yaml is changed: the two names, and a few steps."""
        return {
            "sft": {"method": self.method, "packing": not METHODS[self.method].virtual}
            | FEW_STEPS
            | RATES.get(self.method, {}),
            "reward": {"batch_size": 2},
            "align": {
                "alignment": self.alignment,
                "method": self.method,
                "batch_size": 8,
                "rollout": {"prompts": 4, "answers": 2, "max_answer_tokens": 8, "updates": 2},
            },
        }

    @property
    def refused(self) -> bool:
        """Whether settings that name both are refused when they are read."""
        settings = yaml.safe_load(SETTINGS.read_text())
        update(settings, self.settings())
        try:
            Params.model_validate(settings)
        except ValidationError:
            return True
        return False


FEW_STEPS = {"epochs": 1, "min_steps": 0, "batch_size": 8}
# IA3's scales begin at 1: a few steps at the default rate are lost in bf16's rounding, and the package says so.
RATES: dict[str, dict[str, float]] = {"ia3": {"learning_rate": 1e-2}}
DEFAULT = Cell("lora", "none")
QUICK = [Cell("lora", "dpo")]
CELLS = [Cell(method, alignment) for method in METHODS for alignment in ALIGNMENTS]

HEAD = """# What is run together

Written by `python -m tests.matrix`; a test compares it with `params.yaml`. Rows are `sft.method`
and `align.method`, columns `align.alignment`. A cell says which command runs both through
`dvc.yaml`, for a few steps of a model of two narrow layers on few rows, in a checkout with a
finished default release. *Refused*: the settings are refused by name before anything runs.

"""
TAIL = """
`qlora` needs a GPU, and these runs are on processors, whose launches refuse it. Where there is a
GPU, `make test` takes it through SFT, DPO, KTO, GRPO, PPO and the package, and every other method
through SFT (`tests/tasks/train/test_gpu.py`); otherwise it skips that. With `pissa` an alignment
other than PPO would copy an adapter that changes the base model.

`make test` also releases the default domain; `make matrix` the domain `traffic_law`, domains that
`flywheel new-domain` makes of an English, a Chinese and a Swedish table, and four nights with a
rollback between them. All of it has run once, in two hours and forty minutes beside other work;
`ia3` alone after its learning rate here was raised.
"""


def mark(cell: Cell) -> str:
    """What stands in the table."""
    if cell.refused:
        return "refused"
    return "`make test`" if cell in (DEFAULT, *QUICK) else "`make matrix`"


def page() -> str:
    """docs/matrix.md."""
    head = ["", *(f"`{alignment}`" for alignment in ALIGNMENTS)]
    rows = [[f"`{method}`", *(mark(Cell(method, one)) for one in ALIGNMENTS)] for method in METHODS]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows)) + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
