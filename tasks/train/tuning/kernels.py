"""Whether Liger's fused layer kernels (Hsu et al. 2024, arXiv 2410.10989) are used: on GPUs, where they are installed.

They are Triton, which a processor has no use for; what takes their place there is in low_rank.py and scoring.py.
Limits: not in the locks (`pip install liger-kernel` adds them), and not tried on a GPU by us; installing them between
a kill and a resume changes roundings.
"""

from __future__ import annotations

from importlib.util import find_spec

from tasks.train.worker import on_cpu


def use_liger() -> bool:
    """Whether the trainer is to put Liger's kernels into the model."""
    return not on_cpu() and find_spec("liger_kernel") is not None
