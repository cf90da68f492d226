"""params.yaml, typed. Every mistake in it is reported at once, by key, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks import layout
from tasks.errors import FlywheelError

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Settings = TypeVar("Settings", bound=BaseModel)


class SettingsError(FlywheelError):
    """A settings file is wrong; the message lists every mistake by file and key."""


class Section(BaseModel):
    """Base of all sections: unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ValidateParams(Section):
    """Bounds of the validation suite."""

    min_rows: Positive
    max_failing_share: Share
    min_output_tokens: Positive
    min_language_confidence: Annotated[float, Field(ge=0.0, le=1.0)]
    max_total_tokens: Positive


class DedupParams(Section):
    """Near duplicates by MinHash over character shingles (no spaces between words assumed)."""

    near_threshold: Annotated[float, Field(gt=0.0, le=1.0)]
    shingle: Positive
    permutations: Annotated[int, Field(ge=16)]


class SelectParams(Section):
    """Which of the deduplicated examples are trained on."""

    method: Literal["all"]


class MixParams(Section):
    """General replay, refusals, held-out validation share and the leak guard."""

    replay_ratio: Share
    safety_ratio: Share
    validation_share: Share
    leak_threshold: Annotated[float, Field(gt=0.0, le=1.0)]


class LoraParams(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Positive
    alpha: Positive
    dropout: Share
    target_modules: Annotated[list[str], Field(min_length=1)]


class SftParams(Section):
    """Supervised fine-tuning. Batch sizes are in sequences, lengths in tokens."""

    method: Literal["lora"]
    launch: str
    precision: Literal["fp32", "bf16"]
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    warmup_ratio: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: Annotated[float, Field(gt=0.0)]
    batch_size: Positive
    gradient_accumulation: Positive
    max_tokens: Positive
    save_every: Positive
    lora: LoraParams


class PackageParams(Section):
    """What a package must hold to before it may be judged."""

    max_logit_difference: Annotated[float, Field(gt=0.0)]


class EvaluateParams(Section):
    """How both sides are measured: one backend, the same settings."""

    backend: Literal["huggingface"]
    precision: Literal["fp32", "bf16"]
    batch_size: Positive
    max_new_tokens: Positive
    threads: Positive
    timeout_minutes: Positive


class GateParams(Section):
    """Margins of the gate; dialogue and safety in nats per token, MMLU in probability."""

    level: Annotated[float, Field(gt=0.5, lt=1.0)]
    resamples: Annotated[int, Field(ge=1000)]
    dialogue_margin: Annotated[float, Field(gt=0.0)]
    mmlu_margin: Annotated[float, Field(gt=0.0)]
    safety_margin: Annotated[float, Field(gt=0.0)]


class Params(Section):
    """All settings, one section per stage."""

    domain: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    seed: Annotated[int, Field(ge=0)]
    validate_: ValidateParams = Field(alias="validate")
    dedup: DedupParams
    select: SelectParams
    mix: MixParams
    sft: SftParams
    package: PackageParams
    evaluate: EvaluateParams
    gate: GateParams

    @model_validator(mode="after")
    def _agree(self) -> Params:
        problems = []
        if self.validate_.max_total_tokens > self.sft.max_tokens:
            problems.append("validate.max_total_tokens must be at most sft.max_tokens, which refuses longer examples")
        if self.validate_.min_output_tokens >= self.sft.max_tokens:
            problems.append("validate.min_output_tokens must be below sft.max_tokens")
        if self.mix.replay_ratio + self.mix.safety_ratio >= 1.0:
            problems.append("mix.replay_ratio and mix.safety_ratio must leave room for the domain: below 1 together")
        launch_file = Path("infra/accelerate") / f"{self.sft.launch}.yaml"
        if not launch_file.is_file():
            problems.append(f"sft.launch: {launch_file} does not exist")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def load_params(path: Path = layout.PARAMS) -> Params:
    """Read and check the settings.

    Raises:
        SettingsError: the file is missing, is not YAML, or holds mistakes; all of them are listed by key.
    """
    return parse_settings(path, Params)


def parse_settings(path: Path, kind: type[Settings]) -> Settings:
    """Read a YAML file into a typed settings class, with every mistake in one SettingsError."""
    try:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: the file does not exist") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from None
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in mistakes(error))) from None


def mistakes(error: ValidationError) -> list[str]:
    """One line for each mistake pydantic found: the key, then what is wrong with it."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        lines.append(f"{key}: {message}" if key else message)
    return lines
