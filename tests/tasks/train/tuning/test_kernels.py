"""Liger's kernels are used where they are installed, and never on a processor."""

from __future__ import annotations

import pytest

from tasks.train.tuning import kernels


@pytest.mark.parametrize(
    "accelerator, installed, used", [("cpu", True, False), ("cuda", False, False), ("cuda", True, True)]
)
def test_liger_is_for_gpus_that_have_it(
    accelerator: str, installed: bool, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", accelerator)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object() if installed and name == "liger_kernel" else None)
    assert kernels.use_liger() is used
