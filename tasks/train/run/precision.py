"""Which precision to compute in, where the settings leave it to the machine.

Needs no torch: processors are read from the kernel, GPUs from nvidia-smi. There is no fp16 here: its range needs
scaled losses, which own trainers would each have to know of.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tasks.core.training_params import Precision

CPU_INFO = Path("/proc/cpuinfo")
# Instruction sets that multiply bfloat16 matrices; without one of them bf16 is slower than fp32 on a processor.
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
BF16_CAPABILITY = 8  # NVIDIA's compute capability from which on GPUs multiply it (Ampere); before, it is emulated


def resolve_precision(asked: Precision, launch: Mapping[str, Any]) -> Literal["fp32", "bf16"]:
    """`auto` becomes bf16 on GPUs and processors that multiply it, fp32 elsewhere; the others stay.

    `launch` is a configuration of infra/accelerate, which says what the training runs on.
    """
    if asked != "auto":
        return asked
    on_cpu = bool(launch.get("use_cpu"))
    if multiplies_bf16(on_cpu):
        return "bf16"
    if not on_cpu:
        print("precision: auto is fp32 here, because a GPU of this machine does not multiply bf16", flush=True)
    return "fp32"


def multiplies_bf16(on_cpu: bool) -> bool:
    """Whether this machine's processor, or each of its GPUs, has instructions for bfloat16 matrices.

    Without an NVIDIA GPU here the training is planned for another machine, or runs on GPUs that all do (AMD's).
    """
    if not on_cpu:
        return all(capability >= BF16_CAPABILITY for capability in gpu_capabilities())
    found = CPU_INFO.read_text(encoding="utf-8") if os.access(CPU_INFO, os.R_OK) else ""
    flags = next((line.split(":", 1)[1].split() for line in found.splitlines() if line.startswith("flags")), [])
    return bool(BF16_FLAGS.intersection(flags))


@functools.cache
def gpu_capabilities() -> tuple[float, ...]:
    """The compute capability of each NVIDIA GPU that may be used here; empty where there is none."""
    return tuple(ask_gpus("compute_cap"))


def ask_gpus(figure: str) -> list[float]:
    """What nvidia-smi says of each GPU that may be used here, sizes in MiB; none where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = ["-i", visible] if visible else []
    command = ["nvidia-smi", *chosen, f"--query-gpu={figure}", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return [float(line) for line in found.stdout.split()]
    return []
