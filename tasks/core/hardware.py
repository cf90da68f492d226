"""What this machine has to compute with, read from the kernel and nvidia-smi, without torch."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

Precision = Literal["fp32", "bf16", "auto"]
CPU_INFO = Path("/proc/cpuinfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")
# Instruction sets that multiply bfloat16 matrices; without one of them bf16 is slower than fp32 on a processor.
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
BF16_CAPABILITY = 8  # NVIDIA's compute capability from which on GPUs multiply it (Ampere); before, it is emulated


def resolve_precision(asked: Precision, launch: Mapping[str, Any]) -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 on GPUs and processors that multiply it, fp32 elsewhere; the others stay.

    `launch` is a configuration of infra/accelerate. Where no NVIDIA GPU is here, the GPUs are taken for ones that do.
    No fp16: its range needs scaled losses.
    """
    if asked != "auto":
        return asked
    if launch.get("use_cpu"):
        return "bf16" if BF16_FLAGS.intersection(*processors("flags")[:1] or [[]]) else "fp32"
    if all(float(capability) >= BF16_CAPABILITY for capability in ask_gpus("compute_cap")):
        return "bf16"
    print("precision: auto is fp32 here, because a GPU of this machine does not multiply bf16", flush=True)
    return "fp32"


@lru_cache(maxsize=1)
def launch_here() -> str:
    """The file of infra/accelerate that `launch: auto` stands for on this machine: by its GPUs, else its processors."""
    gpus = len(ask_gpus("index"))
    if gpus:
        return "gpu1" if gpus == 1 else "gpu8"
    return "cpu" if (os.cpu_count() or 1) > 1 else "cpu1"


def processors(field: str) -> list[list[str]]:
    """The words of a field of /proc/cpuinfo, for each processor; nothing where it cannot be read."""
    with contextlib.suppress(OSError):
        found = re.findall(rf"^{field}\s*:(.*)$", CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
        return [words.split() for words in found]
    return []


def ask_gpus(figure: str) -> list[str]:
    """What nvidia-smi says of each GPU that may be used here; nothing where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = ["-i", visible] if visible else []
    command = ["nvidia-smi", *chosen, f"--query-gpu={figure}", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return [word for word in found.stdout.split() if re.fullmatch(r"[\d.]+", word)]
    return []


def gpu_bytes(figure: str) -> list[int]:
    """Memory of each NVIDIA GPU that may be used here. `figure`: total or free."""
    return [int(mebibytes) << 20 for mebibytes in ask_gpus(f"memory.{figure}")]


def free_memory() -> int:
    """Bytes of main memory that processes of ours can still get, within this container's limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit, used, kinds = (
            (CONTROL_GROUP / f"memory.{name}").read_text(encoding="utf-8") for name in ("max", "current", "stat")
        )
        # The file cache counts as used but is given back on demand.
        cached = dict(line.split() for line in kinds.splitlines())["file"]
        free = min(free, int(limit) - int(used) + int(cached))
    return max(0, free)
