"""What every online trainer can do besides learning: answer, have answers judged, and say whether its policy is sound.

Mixed into a Trainer of transformers or TRL, so that PPO, RLOO and GRPO are measured, bounded and kept in one way.
Needs torch, transformers and trl: import it in a worker process only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.train.align.online.bounds import OutOfBounds
from tasks.train.align.online.policy import Reading, read
from tasks.train.align.online.rollouts import Answers, answer
from tasks.train.align.stage import OnlineJob
from tasks.train.run.held_weights import VALUE_HEAD, Held, all_finite, held, lent
from tasks.train.run.online_plan import OnlinePlan

Reward = Callable[[Tensor, Tensor], Tensor]  # token ids and mask, both (rows, columns) → (rows,) scores


class Judging:
    """Answers and judgements of a trainer's policy, against the policy that it began as.

    Call `remember` once the trainer is built and before it trains; the rest needs what it sets.
    """

    job: OnlineJob
    plan: OnlinePlan
    reward: Reward
    reference: Held  # what the SFT policy had where ours is trained
    last_good: Held
    args: Any  # these are the Trainer's own
    accelerator: Any
    model: Any
    model_wrapped: Any
    processing_class: Any
    is_deepspeed_enabled: bool

    def remember(self, job: OnlineJob, plan: OnlinePlan, reward: Reward) -> None:
        """Take the settings, their sizes and the reward, and hold the policy as it stands for the SFT policy."""
        self.job, self.plan, self.reward = job, plan, reward
        self.last_good = self.reference = held(self.policy)

    @property
    def policy(self) -> Any:
        """The policy without what accelerate and DeepSpeed wrap around it."""
        return self.accelerator.unwrap_model(self.model)

    def sound(self) -> Held:
        """A copy of what the policy trains. Raises OutOfBounds: a number of it is not finite, so it cannot answer."""
        own = held(self.policy)
        if not all_finite(own):
            raise OutOfBounds("a weight is not finite; lower align.learning_rate")
        return own

    def sample(self, prompts: Sequence[Sequence[int]], seed: int) -> Answers:
        """One answer of the policy to each of the prompts (token ids)."""
        from trl.models import unwrap_model_for_generation

        rollout = self.job.settings.rollout
        self.model.eval()
        wrapped = self.model_wrapped if self.is_deepspeed_enabled else self.model
        with unwrap_model_for_generation(wrapped, self.accelerator) as policy:
            return answer(policy, self.processing_class, prompts, rollout.max_answer_tokens, rollout.temperature, seed)

    @torch.no_grad()
    def judge(self, answers: Answers) -> tuple[Tensor, Tensor, Reading]:
        """Scores (answers,), drift from the SFT policy (answers, answer columns; nats) and the policy's own reading."""
        own = self._read_all(answers)
        with lent(self.policy, self.reference):
            reference = self._read_all(answers)
        batches = [answers.pick(rows) for rows in self._micro(len(answers.tokens))]
        scores = torch.cat([self.reward(batch.tokens, batch.mask).float() for batch in batches])
        return scores, (own.logps - reference.logps) * answers.answer_mask, own

    def _micro(self, answers: int) -> list[list[int]]:
        size = self.args.per_device_train_batch_size
        return [list(range(first, min(first + size, answers))) for first in range(0, answers, size)]

    def _read_all(self, answers: Answers) -> Reading:
        """What the policy says of all answers, a few at a time; zero where a column is used by other answers only."""
        self.model.eval()
        head, width = getattr(self.policy, VALUE_HEAD, None), answers.answer_mask.shape[1]
        readings = [
            read(self.model, head, answers.pick(rows), self.job.settings.rollout.temperature)
            for rows in self._micro(len(answers.tokens))
        ]

        def joined(tensors: list[Tensor]) -> Tensor:
            return torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1])) for t in tensors])

        return Reading(
            joined([reading.logps for reading in readings]),
            joined([reading.values for reading in readings]),
            joined([reading.entropy for reading in readings]),
        )
