"""The training sections of params.yaml: the methods, the stages that train, and how alignment is done.

A stage names its method; the method's own section under `methods` holds what applies to it and accepts nothing else.
Lengths are in tokens, batch sizes in sequences a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tasks.core.hardware import Precision, launch_here
from tasks.core.settings import Above, Natural, Positive, Section, Share

ALL_LINEAR = "all-linear"  # every matrix of the layers, whatever a model calls them
Modules = Literal["all-linear"] | Annotated[list[str], Field(min_length=1)]
Method = Literal[
    "full", "lora", "rslora", "dora", "pissa", "qlora", "p_tuning_v2", "p_tuning", "prompt_tuning", "ia3", "osf"
]
Alignment = Literal["none", "dpo", "kto", "ppo", "rloo", "grpo"]
ServedAs = Literal["adapter", "weights", "nothing"]
ONLINE: tuple[Alignment, ...] = ("ppo", "rloo", "grpo")  # they generate answers and need a reward model


class FullParams(Section):
    """Every weight is trained."""

    train_embeddings: bool


class LoraParams(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Positive
    alpha: Positive
    dropout: Share
    target_modules: Modules


class DoraParams(LoraParams):
    """Weight-decomposed LoRA (Liu et al. 2024, arXiv 2402.09353)."""


class PissaParams(Section):
    """LoRA begun at the principal singular vectors (Meng et al. 2024, arXiv 2404.02948), without dropout as there.

    Served as a LoRA of twice the rank over the unchanged base model.
    """

    rank: Positive
    alpha: Positive
    iterations: Positive  # of the fast singular value decomposition
    target_modules: Modules


class QloraParams(LoraParams):
    """LoRA over a base model in four bits (Dettmers et al. 2023, arXiv 2305.14314)."""

    quantisation: Literal["nf4", "fp4"]
    double_quantisation: bool


class PTuningV2Params(Section):
    """Trained keys and values before every layer (Liu et al. 2021, arXiv 2110.07602)."""

    virtual_tokens: Positive
    projection: bool  # through a two-layer network while training
    hidden: Positive  # the width of that network


class PTuningParams(Section):
    """Virtual tokens from a small network (Liu et al. 2021, arXiv 2103.10385)."""

    virtual_tokens: Positive
    encoder: Literal["mlp", "lstm"]
    hidden: Positive


class PromptTuningParams(Section):
    """Virtual tokens before the prompt (Lester et al. 2021, arXiv 2104.08691)."""

    virtual_tokens: Positive
    begin_with: str  # a text whose embeddings they start from; empty: at random


class Ia3Params(Section):
    """Trained factors on keys, values and inner activations (Liu et al. 2022, arXiv 2205.05638)."""

    target_modules: Modules
    feedforward_modules: list[str]


class OsfParams(Section):
    """Training in the subspace that the largest singular values leave free (Nayak et al. 2025, arXiv 2504.07097)."""

    target_modules: Modules
    kept_rank: Positive  # singular directions of each weight that stay as they are


@dataclass(frozen=True)
class Facts:
    """What the other code must know of a method.

    peft: peft's type of the adapter that is trained; None: every weight is.
    served_as: how an engine serves what it leaves over the base model.
    options: what peft's configuration takes from the method's section and the base model's folder.
    virtual: it puts virtual tokens before each example, so that examples cannot be packed into one row.
    whole: its gradients reach the weights themselves.
    unsplit: it reads weights whole, which ZeRO-3 shares out.
    """

    peft: str | None
    served_as: ServedAs
    options: Callable[[Any, Path], dict[str, Any]]
    virtual: bool = False
    whole: bool = False
    unsplit: bool = False


def _low_rank(section: Any, dropout: float, **more: Any) -> dict[str, Any]:
    sizes = {"r": section.rank, "lora_alpha": section.alpha, "lora_dropout": dropout}
    return {**sizes, "target_modules": section.target_modules, "bias": "none", **more}


def _virtual(section: Any, **more: Any) -> dict[str, Any]:
    return {"num_virtual_tokens": section.virtual_tokens, "encoder_hidden_size": section.hidden, **more}


def _prompt(section: Any, base: Path) -> dict[str, Any]:
    tokens = {"num_virtual_tokens": section.virtual_tokens}
    if not section.begin_with:
        return {**tokens, "prompt_tuning_init": "RANDOM"}
    text = {"prompt_tuning_init_text": section.begin_with, "tokenizer_name_or_path": str(base)}
    return {**tokens, "prompt_tuning_init": "TEXT", **text}


# Another method is a section above, a row here, and its name in Method and MethodsParams.
METHODS: dict[Method, Facts] = {
    "full": Facts(None, "weights", lambda section, base: {}, whole=True),
    "lora": Facts("LORA", "adapter", lambda section, base: _low_rank(section, section.dropout)),
    "rslora": Facts("LORA", "adapter", lambda section, base: _low_rank(section, section.dropout, use_rslora=True)),
    "dora": Facts("LORA", "weights", lambda section, base: _low_rank(section, section.dropout, use_dora=True)),
    "pissa": Facts(  # its paper trains without dropout
        "LORA",
        "adapter",
        lambda section, base: _low_rank(section, 0.0, init_lora_weights=f"pissa_niter_{section.iterations}"),
    ),
    "qlora": Facts("LORA", "adapter", lambda section, base: _low_rank(section, section.dropout), unsplit=True),
    "p_tuning_v2": Facts(
        "PREFIX_TUNING",
        "nothing",
        lambda section, base: _virtual(section, prefix_projection=section.projection),
        virtual=True,
    ),
    "p_tuning": Facts(
        "P_TUNING",
        "nothing",
        lambda section, base: _virtual(
            section, encoder_reparameterization_type=section.encoder.upper(), encoder_dropout=0.0
        ),
        virtual=True,
    ),
    "prompt_tuning": Facts("PROMPT_TUNING", "nothing", _prompt, virtual=True),
    "ia3": Facts("IA3", "weights", lambda section, base: section.model_dump()),
    "osf": Facts(
        "OSF",
        "weights",
        lambda section, base: {"effective_rank": section.kept_rank, "target_modules": section.target_modules},
        whole=True,
        unsplit=True,
    ),
}


class MethodsParams(Section):
    """One section a method; a stage uses the one that its `method` names."""

    full: FullParams
    lora: LoraParams
    rslora: LoraParams  # scaled by alpha over the root of the rank (Kalajdzievski 2023, arXiv 2312.03732)
    dora: DoraParams
    pissa: PissaParams
    qlora: QloraParams
    p_tuning_v2: PTuningV2Params
    p_tuning: PTuningParams
    prompt_tuning: PromptTuningParams
    ia3: Ia3Params
    osf: OsfParams

    def of(self, method: Method) -> Section:
        """The section of one method."""
        section: Section = getattr(self, method)
        return section


class TrainingParams(Section):
    """What every stage that trains has."""

    method: Method
    launch: str
    precision: Precision
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    warmup_ratio: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: Above
    batch_size: Positive
    gradient_accumulation: Positive
    max_tokens: Positive
    save_every: Positive
    max_restarts: Natural

    @field_validator("launch")
    @classmethod
    def _of_this_machine(cls, launch: str) -> str:
        return launch_here() if launch == "auto" else launch


class SftParams(TrainingParams):
    """Supervised fine-tuning."""

    min_steps: Natural  # a training from the base model has more epochs where they would be fewer steps; 0: never more
    packing: bool

    @model_validator(mode="after")
    def _own_prefixes(self) -> SftParams:
        if self.packing and METHODS[self.method].virtual:
            raise ValueError(
                f"packing cannot be used with {self.method}: packed examples cannot have prefixes each; set it to false"
            )
        return self


class PretrainParams(TrainingParams):
    """Continued pretraining on the domain's documents, with general text mixed in."""

    enabled: bool
    general_ratio: Annotated[float, Field(ge=0.0)]  # general tokens for each token of the domain


class RewardParams(TrainingParams):
    """The reward model. Its preferences are split by prompt, so that no prompt is on both sides."""

    validation_share: Share


class DpoParams(Section):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

    beta: Above


class KtoParams(Section):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306)."""

    beta: Above
    desirable_weight: Above
    undesirable_weight: Above


class RolloutParams(Section):
    """How the online methods let the policy answer."""

    prompts: Positive  # of one update, over all processes
    answers: Positive  # for each prompt
    max_prompt_tokens: Positive
    max_answer_tokens: Positive
    temperature: Above
    updates: Positive


class BoundsParams(Section):
    """Outside of these an online run stops by itself and keeps the last good policy."""

    max_kl: Above  # nats an answer, policy against the SFT policy
    max_ratio: Annotated[float, Field(gt=1.0)]  # mean of the largest probability ratios of an update
    min_entropy: Annotated[float, Field(ge=0.0)]  # nats a token


class PpoParams(Section):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), with adaptive KL (Ziegler et al. 2019)."""

    epochs: Positive  # passes over one batch of answers
    minibatches: Positive
    clip: Annotated[float, Field(gt=0.0, lt=1.0)]
    value_clip: Above
    value_coefficient: Above
    gamma: Annotated[float, Field(gt=0.0, le=1.0)]
    gae_lambda: Annotated[float, Field(ge=0.0, le=1.0)]
    kl_coefficient: Annotated[float, Field(ge=0.0)]
    kl_target: Above  # nats an answer, which the adaptive coefficient steers to
    kl_horizon: Above  # answers over which it does
    whiten_rewards: bool


class GroupParams(Section):
    """RLOO (Ahmadian et al. 2024, arXiv 2402.14740) and GRPO (Shao et al. 2024, arXiv 2402.03300)."""

    beta: Annotated[float, Field(ge=0.0)]
    clip: Annotated[float, Field(gt=0.0, lt=1.0)]
    iterations: Positive


class AlignParams(TrainingParams):
    """Alignment to preferences, after SFT. `method` says what of the policy is trained."""

    alignment: Alignment
    dpo: DpoParams
    kto: KtoParams
    ppo: PpoParams
    rloo: GroupParams
    grpo: GroupParams
    rollout: RolloutParams
    bounds: BoundsParams

    @model_validator(mode="after")
    def _copied(self) -> AlignParams:
        if self.method == "pissa" and self.alignment not in ("none", "ppo"):
            raise ValueError(f"pissa cannot be used with {self.alignment}: copying its adapter changes the base model")
        return self

    @model_validator(mode="after")
    def _groups(self) -> AlignParams:
        if self.alignment in ("rloo", "grpo") and self.rollout.answers < 2:
            raise ValueError(f"rollout.answers must be at least 2 with {self.alignment}, which compares them")
        return self

    @property
    def online(self) -> bool:
        """Whether the policy answers while it trains, which needs the reward model."""
        return self.alignment in ONLINE
