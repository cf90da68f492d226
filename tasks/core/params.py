"""params.yaml, typed: one section per stage. Training's sections are in tasks/core/training_params.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import available_timezones

import yaml
from pydantic import BeforeValidator, Field, model_validator

from tasks.core import layout
from tasks.core.hardware import Precision
from tasks.core.processes import LOOPBACK, is_local
from tasks.core.settings import Natural, Port, Positive, Section, Share, Similarity, parse_settings
from tasks.core.training_params import (
    AlignParams,
    MethodsParams,
    PretrainParams,
    RewardParams,
    SftParams,
    TrainingParams,
)


class ValidateParams(Section):
    """Bounds of the validation suite."""

    min_rows: Positive
    max_failing_share: Share
    min_output_tokens: Positive
    min_language_confidence: Annotated[float, Field(ge=0.0, le=1.0)]
    max_total_tokens: Positive


class EmbedParams(Section):
    """Sentence embeddings of questions, and of questions with answers."""

    batch_size: Positive
    max_characters: Positive
    threads: Positive


class RetrievalParams(Section):
    """What a question is answered from: `k` passages of `tokens` together, none below `threshold`; part of the version.

    After the best passage come only those that score at most `margin` less: among these search is not sure.
    `tuning_epochs` of the embedder on the domain's questions in other words; 0 leaves it as it is.
    """

    enabled: bool
    k: Positive
    tokens: Positive
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None  # None: the embedder's own, from domain.yaml
    margin: Annotated[float, Field(ge=0.0)] | None  # None: the embedder's own, from domain.yaml
    tuning_epochs: Natural


class DedupParams(Section):
    """Three passes: exact; near by MinHash over character shingles (no spaces assumed); by meaning (cosine)."""

    near_threshold: Similarity
    shingle: Positive
    permutations: Annotated[int, Field(ge=16)]
    semantic_threshold: Similarity | None  # None: the embedder's own, from domain.yaml


class BudgetParams(Section):
    """How many examples k-center takes: exactly one of the three is set, the others are 0."""

    count: Annotated[int, Field(ge=0)]
    share: Annotated[float, Field(ge=0.0, le=1.0)]
    radius: Annotated[float, Field(ge=0.0, le=2.0)]

    @model_validator(mode="after")
    def _one(self) -> BudgetParams:
        if sum(bool(value) for value in (self.count, self.share, self.radius)) != 1:
            raise ValueError("exactly one of count, share and radius is set, the others are 0")
        return self


class NuggetsParams(Section):
    """Golden scores (Li et al. 2023, arXiv 2312.10302). `pairs` bounds the forward passes: examples times tasks."""

    pairs: Positive
    tasks: Positive
    threshold: Annotated[float, Field(ge=0.0, le=1.0)]
    share: Annotated[float, Field(ge=0.0, le=1.0)]
    max_tokens: Positive
    batch_size: Positive
    threads: Positive

    @model_validator(mode="after")
    def _one(self) -> NuggetsParams:
        if bool(self.threshold) == bool(self.share):
            raise ValueError("exactly one of threshold and share is set, the other is 0")
        return self


class SelectParams(Section):
    """Which of the deduplicated examples are trained on."""

    method: Literal["all", "random", "k_center", "nuggets", "k_center_nuggets"]
    budget: BudgetParams
    nuggets: NuggetsParams


class BoostParams(Section):
    """Weak spots: the `share` of selected examples that the model finds hardest, seen `repeat` times an epoch."""

    share: Share
    repeat: Positive
    max_perplexity: Annotated[float, Field(gt=1.0)]


class MixParams(Section):
    """General replay, refusals, weak spots, held-out validation share and the leak guard."""

    replay_ratio: Share
    safety_ratio: Share
    min_replay: Natural  # rows at least, where there is a ratio
    min_refusals: Natural
    validation_share: Share
    without_answer: Share  # of examples with passages: the right one is taken away, and the answer declines
    wordings: Positive  # in which an example with passages is asked, at most, each in a row of its own
    two_passages: Share  # of examples with passages: two questions in one, answered from two of them
    leak_threshold: Similarity
    leak_semantic_threshold: Similarity | None  # None: the embedder's own, from domain.yaml
    boost: BoostParams


class TeacherParams(Section):
    """Who writes: the local engine on the base model, or any OpenAI-compatible endpoint (key in FLYWHEEL_TEACHER_KEY).

    Prices are in one currency a million tokens; `budget_cost` 0 sets no limit in money.
    """

    kind: Literal["local", "url"]
    url: str
    model: str
    temperature: Annotated[float, Field(ge=0.0, le=2.0)]
    max_tokens: Positive
    concurrency: Positive
    retries: Annotated[int, Field(ge=0)]
    timeout_seconds: Annotated[float, Field(gt=0.0)]
    budget_tokens: Positive
    budget_cost: Annotated[float, Field(ge=0.0)]
    price_input: Annotated[float, Field(ge=0.0)]
    price_output: Annotated[float, Field(ge=0.0)]

    @model_validator(mode="after")
    def _address(self) -> TeacherParams:
        if (self.kind == "url") != bool(self.url and self.model):
            raise ValueError("url and model go with kind: url, and only with it")
        if self.budget_cost and not (self.price_input or self.price_output):
            raise ValueError("budget_cost needs price_input and price_output")
        return self


class ChunkParams(Section):
    """How documents are cut, in tokens of the base model."""

    tokens: Positive
    overlap: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _smaller(self) -> ChunkParams:
        if self.overlap >= self.tokens:
            raise ValueError("overlap must be below tokens")
        return self


class SelfInstructParams(Section):
    """Self-Instruct (Wang et al. 2022, arXiv 2212.10560). 0 examples switches it off."""

    examples: Annotated[int, Field(ge=0)]
    max_requests: Positive
    seeds_per_prompt: Positive
    max_similarity: Similarity


class SelfQaParams(Section):
    """Self-QA from documents. 0 chunks switches it off.

    With `turns` above 1 a chunk gives one conversation of that many questions, in place of single ones.
    """

    chunks: Annotated[int, Field(ge=0)]
    questions_per_chunk: Positive
    turns: Positive
    min_groundedness: Similarity


class SelfKvParams(Section):
    """Self-KV from triples. 0 examples switches it off."""

    examples: Annotated[int, Field(ge=0)]
    two_hop_share: Annotated[float, Field(ge=0.0, le=1.0)]
    paraphrase: bool


class ConstructParams(Section):
    """How instruction data is built. A method runs where it is on and the domain has the sources for it."""

    teacher: TeacherParams
    chunk: ChunkParams
    self_instruct: SelfInstructParams
    self_qa: SelfQaParams
    self_kv: SelfKvParams


class PackageParams(Section):
    """What a package must hold to before it may be judged."""

    max_logit_difference: Annotated[float, Field(gt=0.0)]


class EvaluateParams(Section):
    """How both sides are measured: one backend, the same settings."""

    backend: Literal["huggingface", "engine"]
    precision: Precision
    batch_size: Positive
    max_new_tokens: Positive
    repetition_penalty: Annotated[float, Field(ge=1.0, le=2.0)]  # the gateway asks its engine for the same
    threads: Positive
    timeout_minutes: Positive


class GateParams(Section):
    """Margins of the gate; NLLs in nats per token, ROUGE-L as it is, MMLU in probability, the others in shares.

    Those of ROUGE-L, right answers, declining and what is kept count in a night that goes on from a champion; any other
    release has to be better there. The NLL's counts for smaller forms, and all but what is kept where only documents
    were learned. A catastrophe is an item that loses more than is set for its unit; of all, a share of at most
    `catastrophe_share` may.
    """

    level: Annotated[float, Field(gt=0.5, lt=1.0)]
    resamples: Annotated[int, Field(ge=1000)]
    dialogue_margin: Annotated[float, Field(gt=0.0)]
    domain_rouge_margin: Annotated[float, Field(gt=0.0)]
    domain_nll_margin: Annotated[float, Field(gt=0.0)]
    right_margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    declined_margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    kept_margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    mmlu_margin: Annotated[float, Field(gt=0.0)]
    safety_margin: Annotated[float, Field(gt=0.0, lt=1.0)]
    catastrophe_nats: Annotated[float, Field(gt=0.0)] = 0.5
    catastrophe_probability: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    catastrophe_rouge: Annotated[float, Field(gt=0.0, le=1.0)] = 0.15
    catastrophe_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1


class FeedbackParams(Section):
    """How what users say becomes training data."""

    start: Literal["champion", "base"]
    max_rows_per_identity: Positive
    repeat: Positive
    learning_rate_share: Annotated[float, Field(gt=0.0, le=1.0)]
    replay_examples: Annotated[int, Field(ge=0)]


class NightlyParams(Section):
    """When a night is run, and when it is worth a release. Operational: shapes no weights."""

    cron: str
    timezone: str
    min_examples: Positive
    approval: bool
    approval_hours: Annotated[float, Field(gt=0.0)]
    alarm_hours: Annotated[float, Field(gt=0.0)]
    serve_minutes: Annotated[float, Field(gt=0.0)]


class EngineParams(Section):
    """The inference engine. Lengths in tokens, memory in GiB. Operational: shapes no weights."""

    kind: Literal["vllm", "transformers", "url"]
    url: str
    port: Port
    precision: Literal["fp32", "bf16"]
    max_model_tokens: Positive
    max_sequences: Positive
    max_adapters: Annotated[int, Field(ge=2)]
    max_adapter_rank: Positive
    kv_cache_gib: Annotated[float, Field(gt=0.0)]
    forward_seed: bool
    start_seconds: Positive
    max_nll_difference: Annotated[float, Field(gt=0.0)]
    min_answer_agreement: Annotated[float, Field(ge=0.0, le=1.0)]


class ServingParams(Section):
    """The gateway: addresses, caps and limits. Operational: shapes no weights."""

    host: str
    port: Port
    tls_certificate: str
    tls_key: str
    client_system: Literal["refuse", "append"]
    drafts: Literal["sample", "challenger"]
    # YAML reads a bare `off` as false.
    memory: Annotated[Literal["own", "reviewed", "off"], BeforeValidator(lambda given: given or "off")]
    max_body_bytes: Positive
    max_messages: Positive
    max_prompt_tokens: Positive
    max_tokens: Positive
    max_n: Positive
    max_concurrent: Positive
    timeout_seconds: Annotated[float, Field(gt=0.0)]
    requests_per_minute: Positive
    feedback_per_minute: Positive
    follow_seconds: Annotated[float, Field(gt=0.0)]
    probes: Positive

    @property
    def address(self) -> str:
        """The gateway and the chat page, as seen from this machine."""
        host = LOOPBACK if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"{'https' if self.tls_certificate else 'http'}://{host}:{self.port}"


class PlatformParams(Section):
    """Ports of the other servers that `make up` starts on the loopback address."""

    prefect_port: Port
    mlflow_port: Port


class Params(Section):
    """All settings, one section per stage."""

    domain: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    seed: Annotated[int, Field(ge=0)]
    accepted_terms: list[str]
    construct_: ConstructParams = Field(alias="construct")
    validate_: ValidateParams = Field(alias="validate")
    retrieval: RetrievalParams
    embed: EmbedParams
    dedup: DedupParams
    select: SelectParams
    mix: MixParams
    methods: MethodsParams
    pretrain: PretrainParams
    sft: SftParams
    reward: RewardParams
    align: AlignParams
    package: PackageParams
    evaluate: EvaluateParams
    gate: GateParams
    feedback: FeedbackParams
    nightly: NightlyParams
    engine: EngineParams
    serving: ServingParams
    platform: PlatformParams

    @model_validator(mode="after")
    def _agree(self) -> Params:
        problems = []
        if self.validate_.max_total_tokens > self.sft.max_tokens:
            problems.append("validate.max_total_tokens must be at most sft.max_tokens, which refuses longer examples")
        if self.validate_.min_output_tokens >= self.sft.max_tokens:
            problems.append("validate.min_output_tokens must be below sft.max_tokens")
        if self.mix.replay_ratio + self.mix.safety_ratio >= 1.0:
            problems.append("mix.replay_ratio and mix.safety_ratio must leave room for the domain: below 1 together")
        for name, stage in self.training():
            named = Path("infra/accelerate") / f"{stage.launch}.yaml"
            launch_file = named if named.is_file() else layout.home() / named
            if not launch_file.is_file():
                problems.append(f"{name}.launch: {named} does not exist")
            elif stage.method == "qlora" and yaml.safe_load(launch_file.read_text(encoding="utf-8")).get("use_cpu"):
                problems.append(
                    f"{name}.method: qlora needs a GPU, and {name}.launch: {stage.launch} has none; use lora"
                )
        read, aligned = self.pretrain.enabled, self.align.alignment != "none"
        methods = [(name, stage.method) for name, stage in self.training() if name != "reward"]
        for (before, earlier), (name, later), goes_on in zip(methods, methods[1:], (read, aligned), strict=False):
            kinds = {{"qlora": "lora"}.get(method, method) for method in (later, earlier)}
            if goes_on and "full" not in kinds and len(kinds) > 1:
                problems.append(
                    f"{name}.method: {later} cannot go on from what {before}.method: {earlier} leaves; "
                    "name the same method, or full"
                )
        if self.align.online and self.align.rollout.max_prompt_tokens >= self.align.max_tokens:
            problems.append("align.rollout.max_prompt_tokens must be below align.max_tokens")
        if (self.engine.kind == "url") != bool(self.engine.url):
            problems.append("engine.url goes with engine.kind: url, and only with it")
        ports = (self.serving.port, self.engine.port, self.platform.prefect_port, self.platform.mlflow_port)
        if len(set(ports)) < len(ports):
            problems.append("serving.port, engine.port, platform.prefect_port and platform.mlflow_port must differ")
        if not is_local(self.serving.host) and not self.serving.tls_certificate:
            problems.append("serving.host other than the loopback address needs serving.tls_certificate and tls_key")
        if self.nightly.timezone not in available_timezones():
            problems.append(f"nightly.timezone: {self.nightly.timezone!r} is no time zone, such as Europe/Stockholm")
        if len(self.nightly.cron.split()) != 5:
            problems.append("nightly.cron has five fields: minute, hour, day, month, weekday")
        if bool(self.serving.tls_certificate) != bool(self.serving.tls_key):
            problems.append("serving.tls_certificate and serving.tls_key go together")
        if self.serving.max_prompt_tokens + self.serving.max_tokens > self.engine.max_model_tokens:
            problems.append("serving.max_prompt_tokens + serving.max_tokens must be at most engine.max_model_tokens")
        if self.evaluate.backend == "engine" and self.evaluate.max_new_tokens >= self.engine.max_model_tokens:
            problems.append("evaluate.max_new_tokens must be below engine.max_model_tokens, where the engine answers")
        if (rank := self.served_rank()) > self.engine.max_adapter_rank:
            problems.append(
                f"engine.max_adapter_rank must be at least {rank}, the rank that methods.{self.sft.method} gives"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def training(self) -> list[tuple[str, TrainingParams]]:
        """The stages that train, by the names of their sections."""
        return [("pretrain", self.pretrain), ("sft", self.sft), ("reward", self.reward), ("align", self.align)]

    def served_rank(self) -> int:
        """The rank at which an engine has to serve the adapter of sft.method; 0 where that is no low-rank adapter."""
        rank = getattr(self.methods.of(self.sft.method), "rank", 0)
        return 2 * rank if self.sft.method == "pissa" else rank


def load_params(path: Path = layout.PARAMS) -> Params:
    """Read and check the settings; raises SettingsError with all mistakes, by key."""
    return parse_settings(path, Params)
