"""What the online methods hold beside the policy: reward model, reference, the policies they may go back to.

Counted from the code that holds it: tasks/train/align/online/judging.py, ppo_trainer.py and group_trainer.py, and TRL.
"""

from __future__ import annotations

from typing import Any

from tasks.train.run.job import TrainingJob
from tasks.train.sizing.demand import Companions
from tasks.train.sizing.workload import is_online


def companions_of(job: TrainingJob) -> Companions:
    """None of any of them for a training that does not answer."""
    if not is_online(job):
        return Companions()
    settings: Any = job.settings
    answers = settings.rollout.prompts * settings.rollout.answers // job.processes
    # While answers are judged there are two copies more: of what the reference stands in for, and of the policy that
    # becomes the last good one (or, at the end, of what the SFT policy's answers are compared with).
    if settings.alignment == "ppo":
        # Reference and last good policy.
        return Companions(whole=1, copies=2, lent=2, saved=1, answers=answers)
    beta = (settings.rloo if settings.alignment == "rloo" else settings.grpo).beta
    full = settings.method == "full"
    # Those, and the policy that is being judged. TRL holds the policy to a second model where every weight is
    # trained, otherwise to a copy of the adapter, which lies in the checkpoints too.
    adapter = not full and (beta > 0 or settings.alignment == "rloo")
    shared = int(full and beta > 0)
    return Companions(whole=1, shared=shared, copies=3 + adapter, lent=2, saved=1 + adapter, answers=answers)
