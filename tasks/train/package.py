"""Stage package: everything a server needs to answer as the model was trained to, in one checked folder.

models/package holds the adapter, the prompt it was trained with, which base it belongs to, and a model card; the
manifest comes last. Nothing is packaged that was not loaded and compared: weights must be finite, and the adapter's
logits must agree with those of the merged weights.
Limits: an adapter over the pinned base; merged weights exist in memory only. The scores are in the release card.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tasks import layout
from tasks.domain import Domain, load_domain
from tasks.errors import FlywheelError
from tasks.files import fresh_directory, sha256_bytes, verify_manifest, write_json, write_manifest, write_text
from tasks.params import Params, load_params
from tasks.prompts import render_prompt
from tasks.stage import run_stage
from tasks.train.sft import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS, METRICS


class PackageError(FlywheelError):
    """The adapter must not be judged or served."""


def refuse_broken_weights(path: Path) -> int:
    """Read every tensor of a safetensors file; returns how many there are.

    Raises:
        PackageError: a tensor holds NaN or an infinity, or the file holds no tensor.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise PackageError(f"{path} is not safetensors: {error}") from None
    broken = sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all())
    if broken:
        raise PackageError(f"{path}: {len(broken)} tensors hold NaN or infinities, the first is {broken[0]}")
    if not tensors:
        raise PackageError(f"{path} holds no weights")
    return len(tensors)


def probe_prompts(tokenizer: Any, domain: Domain) -> list[str]:
    """A few fixed prompts, rendered as in training."""
    questions = ("Hello.", f"What do I have to know about {domain.title.lower()}?", "How are you today?")
    return [render_prompt(tokenizer, domain.system_text(), question) for question in questions]


def logit_difference(base: Path, adapter: Path, prompts: list[str], tokenizer: Any) -> float:
    """The largest difference between the logits of the adapter over its base and of the merged weights, in fp32.

    Raises:
        PackageError: a logit is not finite, or the adapter changes nothing.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    batch = [tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"] for prompt in prompts]

    def logits(of: Any) -> list[Any]:
        with torch.no_grad():
            return [of.eval()(input_ids=ids, use_cache=False).logits for ids in batch]

    plain = logits(model)
    adapted_model = PeftModel.from_pretrained(model, adapter)
    adapted = logits(adapted_model)
    if not all(torch.isfinite(found).all() for found in adapted):
        raise PackageError("the adapter over its base gives logits that are not finite")
    if all(torch.equal(found, before) for found, before in zip(adapted, plain, strict=True)):
        raise PackageError("the adapter changes no logit: it was not trained, or does not fit its base")
    merged = logits(adapted_model.merge_and_unload(safe_merge=True))
    return max(float((one - other).abs().max()) for one, other in zip(adapted, merged, strict=True))


def check_parity(domain: Domain, adapter: Path, limit: float) -> float:
    """Compare adapter and merged weights; returns the largest difference of a logit.

    Raises:
        PackageError: it is above `limit`, or one of the two is broken.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(layout.BASE_MODEL)
    difference = logit_difference(layout.BASE_MODEL, adapter, probe_prompts(tokenizer, domain), tokenizer)
    if not difference <= limit:
        raise PackageError(
            f"merged weights differ by {difference:.2e} in a logit; package.max_logit_difference: {limit}"
        )
    return difference


def prompt_of(domain: Domain, base: Path) -> dict[str, Any]:
    """What has to stand around a question: system prompt, chat template and special tokens."""
    template = (base / "chat_template.jinja").read_text(encoding="utf-8")
    settings = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    return {
        "system": domain.system_text(),
        "chat_template": template,
        "chat_template_sha256": sha256_bytes(template.encode()),
        "special_tokens": {name: settings[name] for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
    }


def base_of(domain: Domain, digest: str) -> dict[str, Any]:
    """Which base the adapter belongs to."""
    source = domain.base_model
    return {
        "name": source.name,
        "digest": digest,
        "licence": source.licence,
        "licence_url": source.licence_url,
        "source_package": source.package,
        "source_sha256": source.sha256,
    }


def model_card(params: Params, domain: Domain, training: dict[str, Any]) -> str:
    """The model card: what it is, from what, how; Hugging Face's front matter on top."""
    lora, sft, source = params.sft.lora, params.sft, domain.base_model
    kinds = (domain.human, domain.seeds, domain.documents, domain.triples, domain.general, [domain.safety])
    sources = [item for kind in kinds for item in kind]
    lines = [f"- {s.attribution} (licence {s.licence}{', ' + s.url if s.url else ''})" for s in sources]
    data = list(dict.fromkeys(lines))  # a source that gives documents and triples stands here once
    return "\n".join(
        [
            "---",
            f"base_model: {source.name}",
            f"language: {domain.language}",
            "library_name: peft",
            f"license: {source.licence.lower()}",
            "pipeline_tag: text-generation",
            "---",
            "",
            f"# {domain.title}",
            "",
            f"A LoRA adapter over {source.name}, tuned with Flywheel on questions and answers of its domain.",
            "What it was judged on, with every score and interval, is in the release card of its version.",
            "",
            "## Data",
            "",
            f"{training['examples']} examples; {training['tokens']:,} tokens over all epochs ({sft.epochs}), "
            f"{training['answer_tokens']:,} of them answers, the only ones that are learnt. Drawn from:",
            "",
            *data,
            "",
            "## Method",
            "",
            f"Supervised fine-tuning, loss on the answers only. LoRA of rank {lora.rank}, alpha {lora.alpha}, dropout "
            f"{lora.dropout} on {', '.join(lora.target_modules)}: {training['trainable_parameters']:,} of "
            f"{training['parameters']:,} parameters. AdamW, learning rate {sft.learning_rate} with cosine decay, "
            f"{training['steps']} steps, {sft.precision}, seed {params.seed}.",
            "",
            "## Licence",
            "",
            f"The base model is licensed under {source.licence} ({source.licence_url}).",
            "The data's licences stand above; their attribution must go along with the adapter.",
            "",
            "## Limits",
            "",
            "A small model: its answers can be wrong and are no legal or professional advice. Ask it with the system",
            "prompt and chat template of prompt.json; it was trained and judged with no other.",
            "",
        ]
    )


def build(params: Params, domain: Domain, base_digest: str, target: Path) -> str:
    """Write the package to `target`, whole or not at all; returns its digest."""
    training = json.loads(METRICS.read_text(encoding="utf-8"))
    with fresh_directory(target) as folder:
        (folder / "adapter").mkdir()
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
            shutil.copyfile(ADAPTER / name, folder / "adapter" / name)
        write_json(folder / "prompt.json", prompt_of(domain, layout.BASE_MODEL))
        write_json(folder / "base.json", base_of(domain, base_digest))
        write_text(folder / "README.md", model_card(params, domain, training))
        return write_manifest(folder)


def stage() -> str:
    """Check base and adapter, then pack them."""
    params = load_params()
    domain = load_domain(params.domain)
    base_digest = verify_manifest(layout.BASE_MODEL)
    verify_manifest(ADAPTER)
    refuse_broken_weights(ADAPTER / ADAPTER_WEIGHTS)
    check_parity(domain, ADAPTER, params.package.max_logit_difference)
    digest = build(params, domain, base_digest, layout.PACKAGE)
    return f"{layout.PACKAGE}, digest {digest[:12]}; adapter and merged weights agree"


def main() -> None:
    """Run the stage."""
    run_stage("package", stage)


if __name__ == "__main__":
    main()
