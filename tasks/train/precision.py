"""Which precision to compute in, where the settings leave it to the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tasks.training_params import Precision

CPU_INFO = Path("/proc/cpuinfo")
# Instruction sets that multiply bfloat16 matrices; without one of them bf16 is slower than fp32 on a processor.
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


def resolve_precision(asked: Precision, launch: Mapping[str, Any]) -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 on a GPU and on processors that multiply it, fp32 elsewhere; the others stay.

    `launch` is a configuration of infra/accelerate, which says what the training runs on.
    """
    if asked != "auto":
        return asked
    if not launch.get("use_cpu"):
        return "bf16"
    return "bf16" if has_bf16(CPU_INFO) else "fp32"


def has_bf16(cpu_info: Path) -> bool:
    """Whether this machine's processor has instructions for bfloat16 matrices."""
    if not os.access(cpu_info, os.R_OK):
        return False
    lines = cpu_info.read_text(encoding="utf-8").splitlines()
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return bool(BF16_FLAGS.intersection(flags))
