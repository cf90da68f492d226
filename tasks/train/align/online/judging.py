"""What every online trainer can do besides learning: answer, be judged, stop at its bounds, be kept. Needs torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from tasks.core.files import write_json
from tasks.core.training_params import BoundsParams
from tasks.train.align.online.policy import Answers, PolicyReading, answer, read, seed_of
from tasks.train.align.stage import OnlineJob
from tasks.train.run.handover import ADAPTER_CONFIG
from tasks.train.run.held_weights import VALUE_HEAD, Held, all_finite, held, lent, whole
from tasks.train.run.online_plan import OnlinePlan
from tasks.train.run.worker import shares

Reward = Callable[[Tensor, Tensor], Tensor]  # token ids and mask, both (rows, columns) → (rows,) scores
ANSWERS = 4  # to each held-out prompt, so that the luck of one weighs less
TENSORS, NUMBERS = "online.safetensors", "online.json"
GOOD, HEAD = "good.", "head."


class RewardModel(torch.nn.Module):
    """The reward model, frozen: a sequence classifier with one label (Stiennon et al. 2020, arXiv 2009.01325).

    Limits: only differences between answers to one prompt mean something.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.pad_token_id: int = model.config.pad_token_id

    @torch.no_grad()
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Scores (rows,) in fp32 of conversations: ids and mask (rows, columns), padded on either side by anything."""
        padded = input_ids.masked_fill(attention_mask == 0, self.pad_token_id)
        scores: torch.Tensor = self.model(input_ids=padded, attention_mask=attention_mask, use_cache=False).logits
        return scores[:, 0].float()


def load_reward_model(
    trained: Path, base: Path, dtype: torch.dtype, pad_token_id: int, attention: str = "eager"
) -> RewardModel:
    """The reward model that stage reward left: models/reward/adapter (over `base`) or models/reward/model."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    adapter = (trained / ADAPTER_CONFIG).is_file()
    model = AutoModelForSequenceClassification.from_pretrained(
        base if adapter else trained,
        num_labels=1,
        dtype=dtype,
        attn_implementation=attention,
        pad_token_id=pad_token_id,
    )
    if adapter:
        model = PeftModel.from_pretrained(model, trained)
    return RewardModel(model)


class OutOfBounds(Exception):
    """A training left its bounds. Not an error: the run ends with the last good policy and says why."""


def check(bounds: BoundsParams, figures: Mapping[str, float]) -> None:
    """Compare the figures of an update, as far as they are there, with their bounds.

    `kl` is in nats an answer, `ratio` the largest of a minibatch, `entropy` in nats a token. Raises OutOfBounds.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise OutOfBounds(f"{name} is {value}; lower align.learning_rate")
    kl, ratio, entropy = figures.get("kl"), figures.get("ratio"), figures.get("entropy")
    if kl is not None and kl > bounds.max_kl:
        raise OutOfBounds(f"the policy is {kl:.2f} nats an answer from the SFT policy, over align.bounds.max_kl")
    if ratio is not None and ratio > bounds.max_ratio:
        raise OutOfBounds(f"an update changed a token's probability {ratio:.2f} times, over align.bounds.max_ratio")
    if entropy is not None and entropy < bounds.min_entropy:
        raise OutOfBounds(f"answers have {entropy:.3f} nats a token left, under align.bounds.min_entropy")


class Judging:
    """Answers and judgements of a Trainer's policy, against the policy that it began as; `remember` comes first."""

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

    @property
    def value_head(self) -> Any:
        """The policy's; RLOO and GRPO have none."""
        return getattr(self.policy, VALUE_HEAD, None)

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
    def judge(self, answers: Answers) -> tuple[Tensor, Tensor, PolicyReading]:
        """Scores (answers,), drift from the SFT policy (answers, answer columns; nats) and the policy's own reading."""
        own = self._read_all(answers)
        with lent(self.policy, self.reference):
            reference = self._read_all(answers)
        scores = torch.cat([self.reward(batch.tokens, batch.mask).float() for batch in self._micro(answers)])
        return scores, (own.logps - reference.logps) * answers.answer_mask, own

    def _micro(self, answers: Answers) -> list[Answers]:
        size, count = self.args.per_device_train_batch_size, len(answers.tokens)
        return [answers.pick(range(first, min(first + size, count))) for first in range(0, count, size)]

    def _read_all(self, answers: Answers) -> PolicyReading:
        """What the policy says of all answers, a few at a time; zero where a column is used by other answers only."""
        self.model.eval()
        temperature, width = self.job.settings.rollout.temperature, answers.answer_mask.shape[1]
        readings = [read(self.model, self.value_head, batch, temperature) for batch in self._micro(answers)]
        padded = (
            [torch.nn.functional.pad(t, (0, width - t.shape[1])) for t in ts] for ts in zip(*readings, strict=True)
        )
        return PolicyReading(*map(torch.cat, padded))


class KeepOnlineState(TrainerCallback):
    """Adds value head, price of a nat and last good policy to every checkpoint; stands before what completes them."""

    trainer: Any  # is built after its callbacks, and set then

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All processes gather, the first writes."""
        head = _head(self.trainer)
        with whole(list(head.values())):
            tensors = {HEAD + name: p.detach().clone().contiguous() for name, p in head.items()}
        tensors |= {GOOD + name: tensor.contiguous() for name, tensor in self.trainer.last_good.items()}
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file(tensors, folder / TENSORS)
            if hasattr(self.trainer, "kl"):
                write_json(folder / NUMBERS, {"kl_coefficient": self.trainer.kl.coefficient})


def _head(trainer: Any) -> dict[str, Any]:
    return dict(trainer.value_head.named_parameters()) if trainer.value_head is not None else {}


@torch.no_grad()
def restore(trainer: Any, checkpoint: Path) -> None:
    """Give a new trainer what a checkpoint remembers; call it in every process, before `train`."""
    tensors, head = load_file(checkpoint / TENSORS), _head(trainer)
    with whole(list(head.values()), write=True):
        for name, p in head.items():
            p.copy_(tensors[HEAD + name])
    good = {name.removeprefix(GOOD): tensor for name, tensor in tensors.items() if name.startswith(GOOD)}
    trainer.last_good = {name: tensor.to(trainer.args.device) for name, tensor in good.items()}
    if (checkpoint / NUMBERS).is_file():
        trainer.kl.coefficient = json.loads((checkpoint / NUMBERS).read_text())["kl_coefficient"]


def compare_held_out(trainer: Any, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """Mean rewards of the SFT policy and of the trained one on prompts (token ids) that it never saw.

    Both answer with the same random numbers; what is not finite is left out. held_out_: prompts, reward_sft, reward,
    gain (gain_low and gain_high: 95%, paired, Student's t over prompts), kl (nats an answer) and entropy (nats a
    token).
    """
    if len(prompts) < 2:
        return {"held_out_prompts": len(prompts)}
    with lent(trainer.policy, trainer.reference):
        before = _judged(trainer, prompts)
    after = _judged(trainer, prompts)
    pairs = [(before[number][0], after[number][0]) for number in sorted(after)]
    low, high = paired_interval([new - old for old, new in pairs])
    figures = {
        "prompts": len(pairs),
        "reward_sft": sum(old for old, _ in pairs) / len(pairs),
        "reward": sum(new for _, new in pairs) / len(pairs),
        "gain": sum(new - old for old, new in pairs) / len(pairs),
        "gain_low": low,
        "gain_high": high,
        "kl": sum(row[1] for row in after.values()) / len(pairs),
        "entropy": sum(row[2] for row in after.values()) / sum(row[3] for row in after.values()),
    }
    return {f"held_out_{name}": value for name, value in figures.items() if math.isfinite(value)}


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """A 95% interval of the mean of at least two differences, by Student's t."""
    from scipy.stats import ttest_1samp

    interval = ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


@torch.no_grad()
def _judged(trainer: Any, prompts: Sequence[list[int]]) -> dict[int, list[float]]:
    """By prompt: mean score, mean drift of an answer, summed entropy and number of tokens of its answers."""
    rank, world, size = trainer.args.process_index, trainer.args.world_size, trainer.plan.answers
    mine = shares(len(prompts), rank, world)
    asked = [number for number in mine for _ in range(ANSWERS)]
    rows: list[list[float]] = []
    for first in range(0, len(asked), size):
        batch = [prompts[number] for number in asked[first : first + size]]
        answers = trainer.sample(batch, seed_of(trainer.job.seed, "held out", first, rank))
        scores, drift, reading = trainer.judge(answers)
        mask = answers.answer_mask
        columns = (scores, drift.sum(1), (reading.entropy * mask).sum(1), mask.sum(1).float())
        rows += torch.stack(columns, dim=1).tolist()
    by_prompt = []
    for place, number in enumerate(mine):
        if number != rank + place * world:  # another process's, which counts there
            continue
        given = rows[place * ANSWERS : (place + 1) * ANSWERS]
        score, kl, entropy, tokens = (sum(column) for column in zip(*given, strict=True))
        by_prompt.append((number, [score / ANSWERS, kl / ANSWERS, entropy, tokens]))
    return dict(gather_object(by_prompt))
