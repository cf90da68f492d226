"""Smaller forms of the packaged version: its weights in eight or four bits, or a student of fewer layers.

Either is a package with a GGUF file and a Modelfile in .flywheel/smaller/<name>: `package/` is handed on, `weights/` is
the file read back, which is judged. Embeddings and output stay at eight bits, norms in fp32. A student keeps both ends
and evenly spaced layers between (Sajjad et al. 2023, arXiv 2004.03844), trained on the teacher's greedy answers (Kim
and Rush 2016, arXiv 1606.07947). Limits: one form of each name; decoder layers alike or listed in the configuration.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core import files, layout
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.package import BASE, KIND, KNOWLEDGE, PROMPT, Kind, read_package
from tasks.core.params import Params, load_params
from tasks.core.records import Example, Turn, make_example, read_own_jsonl, write_jsonl
from tasks.corpus.teacher.teacher import Ask, Endpoint, Message, ReplyCache, Teacher, local_engine, open_teacher
from tasks.text.passages import asked
from tasks.text.prompts import messages_of, render, smuggled_markers
from tasks.train.base_model.stage import assembled, checked_files, load_gguf
from tasks.train.entry.training import execute, run_folder
from tasks.train.package import parity
from tasks.train.package.stage import finish_model, probe_prompts
from tasks.train.run.checkpoints import forget
from tasks.train.run.handover import write_trained
from tasks.train.run.worker import load_tokenizer
from tasks.train.sft.stage import SftJob, describe, with_enough_steps

if TYPE_CHECKING:
    import numpy as np

Quantisation = Literal["q8_0", "q4_1"]
HOME = layout.HOME / "smaller"
GGUF = "model.gguf"
ABOUT = "about.json"
BEGUN = "wanted.json"
DISTILLED = "distilled"  # in the source of an example whose answer is the teacher's
BLOCK = 32  # weights that share a scale
EIGHT_BITS = ("token_embd.weight", "output.weight")  # too few and too often read to be coarser
# Rotary embeddings pair neighbours in a GGUF file of this architecture, and halves of a head in transformers.
PERMUTED = {"llama": (".attn_q.weight", ".attn_k.weight")}
PLUS_ONE = ("gemma", "gemma2", "gemma3")  # whose files hold a norm's whole factor, not its distance from one
TOKENS = {
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
}


class SmallerError(FlywheelError):
    """The packaged version cannot be made smaller as asked."""


@dataclass(frozen=True)
class Smaller:
    """A smaller form: its folder, its package's digest, and what is known of it."""

    folder: Path
    digest: str
    about: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The weights to measure."""
        return self.folder / "weights"


def quantised(kind: Quantisation) -> Smaller:
    """The packaged version as a GGUF file in eight or four bits, read back. Raises SmallerError: it cannot be."""
    folder = HOME / kind
    wanted = {"of": files.verify_manifest(layout.PACKAGE), "quantisation": kind}
    if found := known(folder, wanted):
        return found
    shutil.rmtree(folder, ignore_errors=True)
    return _written(folder, whole_model(), kind, wanted)


def distilled(layers: int) -> Smaller:
    """A student with fewer layers in eight bits, trained on the teacher's answers; goes on where it was killed."""
    params = load_params()
    domain, teacher = load_domain(params.domain), params.construct_.teacher
    folder = HOME / f"distilled_{layers}"
    learnt_from = [files.sha256_file(layout.MIX / f"{name}.jsonl") for name in ("train", "validation")]
    wanted = {
        "of": files.verify_manifest(layout.PACKAGE),
        "layers": layers,
        "teacher": teacher.model if teacher.kind == "url" else "the packaged version",
        "training": files.digest_of([params.sft.model_dump(), params.methods.full.model_dump(), learnt_from]),
    }
    if found := known(folder, wanted):
        return found
    if not (folder / BEGUN).is_file() or json.loads((folder / BEGUN).read_text(encoding="utf-8")) != wanted:
        shutil.rmtree(folder, ignore_errors=True)  # another version's student, or another's teaching
        files.write_json(folder / BEGUN, wanted)
    student, teaching = folder / "student", folder / "teacher"
    if not (student / "MANIFEST.json").is_file():
        with files.fresh_directory(teaching) as whole:
            whole_model().save_pretrained(whole)
            finish_model(whole)
        make_student(parity.load(teaching), layers, student)
    data = {"train": folder / "train.jsonl", "validation": layout.MIX / "validation.jsonl"}
    unique = {example.id: example for example in read_own_jsonl(layout.MIX / "train.jsonl", Example)}
    tokenizer = load_tokenizer(layout.BASE_MODEL)
    with _open_teacher(params, teaching) as asked:
        examples = taught(list(unique.values()), domain.system_text(), asked, teacher.max_tokens, tokenizer)
    write_jsonl(data["train"], examples)
    job = describe_student(params, domain, student, files.verify_manifest(student), data)
    run = run_folder(job)
    write_trained(execute(job, run), folder / "trained", domain.base_model.name)
    for path in (folder / "trained/model").glob("*.safetensors"):
        parity.refuse_broken_weights(path)
    form = _written(folder, parity.load(folder / "trained/model"), "q8_0", wanted, examples=len(examples))
    for path in (folder / "trained", teaching):
        shutil.rmtree(path)
    forget(run)
    return form


def known(folder: Path, wanted: dict[str, Any]) -> Smaller | None:
    """The form in a folder, if it is whole and what is wanted."""
    try:
        digest = files.verify_manifest(folder / "package")
        about = json.loads((folder / "package" / ABOUT).read_text(encoding="utf-8"))
        files.verify_manifest(folder / "weights")
    except (files.ManifestError, OSError, ValueError):
        return None
    return Smaller(folder, digest, about) if wanted.items() <= about.items() else None


def whole_model() -> Any:
    """The packaged version as one model in fp32, its adapter merged. Raises SmallerError: no weights can hold it."""
    files.verify_manifest(layout.PACKAGE)
    package = read_package(layout.PACKAGE)
    if not package.servable:
        raise SmallerError(f"the packaged version has no weights of its own ({package.kind.why})")
    if package.model is None:
        files.verify_manifest(layout.BASE_MODEL)
    model = parity.load(package.model or layout.BASE_MODEL)
    return parity.merge(parity.adapted(model, package.adapter)) if package.adapter else model


def _written(folder: Path, model: Any, kind: Quantisation, wanted: dict[str, Any], **counts: int) -> Smaller:
    """The form, written whole: the GGUF file and what stands beside it; and the file read back, to be measured."""
    domain = load_domain(load_params().domain)
    with files.fresh_directory(folder / "package") as package:
        sizes = quantise(model, domain, kind, package / GGUF)
        again = read_back(package / GGUF, folder / "weights")
        error = round(logit_error(model, again, probe_prompts(domain)), 6)
        about = {**wanted, **sizes, **counts, "quantisation": kind, "logit_error": error}
        tokenizer = load_tokenizer(layout.BASE_MODEL)
        files.write_text(package / "Modelfile", modelfile(tokenizer, domain.system_text()))
        for name in (PROMPT, BASE):
            shutil.copyfile(layout.PACKAGE / name, package / name)
        if (knowledge := layout.PACKAGE / KNOWLEDGE).is_dir():  # it is judged with its passages, as it was trained
            shutil.copytree(knowledge, package / KNOWLEDGE)
        why = "a GGUF file: for llama.cpp and engines that read it (engine.kind: url)"
        files.write_json(package / KIND, Kind(served_as="nothing", why=why).model_dump())
        files.write_json(package / ABOUT, about)
        card = (layout.PACKAGE / "README.md").read_text(encoding="utf-8")
        facts = "\n".join(f"- {key}: {value}" for key, value in sorted(about.items()))
        files.write_text(package / "README.md", f"{card}\n## A smaller form\n\n{why}.\n\n{facts}\n")
        files.write_manifest(package)
    found = known(folder, wanted)
    if found is None:
        raise SmallerError(f"{folder} was not written whole; run the command again")
    return found


def modelfile(tokenizer: Any, system: str) -> str:
    """Ollama's Modelfile; a template per turn that cannot write what the chat template does is left out."""
    lines, end = [f"FROM ./{GGUF}"], tokenizer.eos_token
    words = ("%ASKED%", "%SAID%", "%ASKED AGAIN%")
    turns = messages_of(system and "%SYSTEM%", words[2], (Turn(user=words[0], assistant=words[1]),))
    begin, rest = render(tokenizer, turns).split(words[0])
    answer, rest = rest.split(words[1])
    after, last = rest.split(words[2])
    if system:
        before, between = begin.split("%SYSTEM%")
        begin = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{between}{{{{ end }}}}"
    elif after.endswith(begin):
        after = after.removesuffix(begin)
    else:
        last = ""
    if answer == last:
        lines.append(f'TEMPLATE """{begin}{{{{ .Prompt }}}}{answer}{{{{ .Response }}}}{after}"""')
    if system:
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join([*lines, f'PARAMETER stop "{end}"', "PARAMETER temperature 0", ""])


def quantise(model: Any, domain: Domain, kind: Quantisation, target: Path) -> dict[str, int]:
    """Write a model of the base's architecture to a GGUF file; returns bytes and weights. Raises SmallerError."""
    import gguf

    if not domain.base_model.files:
        raise SmallerError(
            f"{domain.base_model.name} is no GGUF file, and the quantised form is written like the base model's own: "
            "llama.cpp's convert_hf_to_gguf.py makes one of a folder"
        )
    with assembled(checked_files(domain)) as source:
        reader: Any = gguf.GGUFReader(source)
        architecture = str(reader.get_field("general.architecture").contents())
        writer = gguf.GGUFWriter(target, architecture)
        _copy_fields(reader, writer, model, architecture, kind)
        _add_tensors(writer, model, architecture, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return {"bytes": target.stat().st_size, "parameters": sum(p.numel() for p in model.parameters())}


def _copy_fields(reader: Any, writer: Any, model: Any, architecture: str, kind: Quantisation) -> None:
    """Everything but the tensors: the base model's, with this model's layers, template and special tokens."""
    import gguf

    tokenizer = load_tokenizer(layout.BASE_MODEL)
    own: dict[str, Any] = {name: getattr(tokenizer, role) for name, role in TOKENS.items()}
    own["tokenizer.chat_template"] = tokenizer.chat_template
    own["general.file_type"] = int(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    own[f"{architecture}.block_count"] = model.config.get_text_config().num_hidden_layers
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        first = field.types[0]
        inner = field.types[-1] if first == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, own.pop(field.name, field.contents()), first, sub_type=inner)
    for name, value in own.items():
        kind_of_value = gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.UINT32
        writer.add_key_value(name, value, kind_of_value)


def _add_tensors(writer: Any, model: Any, architecture: str, kind: Quantisation) -> None:
    """Matrices whose rows are whole blocks are quantised, everything else is kept."""
    import gguf

    config = model.config.get_text_config()
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise SmallerError(f"{name} has no name in GGUF files of the architecture {architecture}")
        values = _as_in_file(tensor.detach().float().numpy(), found, architecture, config)
        blocks = values.ndim >= 2 and values.shape[-1] % BLOCK == 0
        chosen = gguf.GGMLQuantizationType[("Q8_0" if found in EIGHT_BITS else kind.upper()) if blocks else "F32"]
        writer.add_tensor(found, gguf.quants.quantize(values, chosen), raw_dtype=chosen)


def _as_in_file(values: np.ndarray, name: str, architecture: str, config: Any) -> np.ndarray:
    """A tensor as the file's architecture lays it out; the inverse of what transformers does when it reads one."""
    if name.endswith(PERMUTED.get(architecture, ("\0",))):
        heads = config.num_key_value_heads if "attn_k" in name else config.num_attention_heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape)
    if architecture in PLUS_ONE and name.endswith("norm.weight"):
        return values + 1
    return values


def read_back(file: Path, target: Path) -> Any:
    """The file's weights as a folder of safetensors, and the model. Raises SmallerError: its tokenizer is another."""
    tokenizer, model = load_gguf(file)
    before = load_tokenizer(layout.BASE_MODEL)
    if tokenizer.get_vocab() != before.get_vocab() or tokenizer.eos_token_id != before.eos_token_id:
        raise SmallerError(f"{file} has another vocabulary or end of turn than {layout.BASE_MODEL}")
    shutil.rmtree(target, ignore_errors=True)
    model.config.pad_token_id = before.pad_token_id
    model.save_pretrained(target)
    finish_model(target)
    return model.eval()


def logit_error(one: Any, other: Any, prompts: list[list[int]]) -> float:
    """Root mean square of the difference of all logits, over the spread of the first model's."""
    import torch

    first, second = (torch.cat([x[0] for x in parity.logits_of(m, prompts)]) for m in (one, other))
    return float((first - second).square().mean().sqrt() / first.std())


def kept_layers(layers: int, keep: int) -> list[int]:
    """Which layers stay: both ends and evenly spaced ones between. Raises SmallerError: no such number."""
    if not 2 <= keep < layers:
        raise SmallerError(f"a student of a model with {layers} layers has 2 to {layers - 1}, not {keep}")
    return [round(at * (layers - 1) / (keep - 1)) for at in range(keep)]


def make_student(model: Any, keep: int, target: Path) -> list[int]:
    """Write the student as a model's folder; returns the layers kept. Raises SmallerError: none can be told."""
    import torch

    decoder: Any = getattr(model, "model", None)
    config = model.config.get_text_config()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise SmallerError(
            f"the layers of {type(model).__name__} are not where they are looked for; quantise it instead"
        )
    kept = kept_layers(len(layers), keep)
    decoder.layers = torch.nn.ModuleList([layers[at] for at in kept])
    config.num_hidden_layers = keep
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[at] for at in kept]
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    finish_model(target)
    return kept


def _open_teacher(params: Params, weights: Path) -> Teacher:
    """construct.teacher's endpoint, or an engine of ours on the packaged version; replies are kept either way."""
    settings = params.construct_.teacher
    if settings.kind == "url":
        return open_teacher(params)

    def serve() -> AbstractContextManager[Endpoint]:
        return local_engine(params.engine, weights, Path())

    cache = ReplyCache(layout.TEACHER_CACHE, {"base_model": files.verify_manifest(weights)})
    return Teacher(settings, cache, serve)


def taught(examples: Sequence[Example], system: str, teacher: Teacher, tokens: int, tokenizer: Any) -> list[Example]:
    """The examples with the teacher's answers, but those not ended or marked. Raises SmallerError: none."""
    asks = []
    for example in examples:
        rows = messages_of(example.system or system, asked(example), example.history)
        messages = tuple(Message.model_validate(row) for row in rows)
        asks.append(Ask(messages=messages, max_tokens=tokens, temperature=0.0))
    found = []
    for example, reply in zip(examples, teacher.ask(asks, "distil"), strict=True):
        text = reply.text.strip()
        if reply.error is None and reply.finish_reason == "stop" and text and not smuggled_markers(tokenizer, text):
            names = ("instruction", "input", "system", "history", "language", "origin", "category")
            same = {name: getattr(example, name) for name in names}
            found.append(make_example(**same, output=text, source=(*example.source, DISTILLED)))
    if not found:
        raise SmallerError("the teacher ended none of its answers; raise construct.teacher.max_tokens")
    return found


def describe_student(params: Params, domain: Domain, student: Path, digest: str, data: dict[str, Path]) -> SftJob:
    """The job that trains a student on `data`: sft's with every weight open, never from a champion, as in a night."""
    sft = params.sft.model_copy(update={"method": "full"})
    job = describe(params.model_copy(update={"sft": sft}), domain)
    afresh = job.settings.model_copy(update={"learning_rate": sft.learning_rate})
    settings = with_enough_steps(afresh, data["train"].read_bytes().count(b"\n"), job.processes)
    changes = {"stage": "distil", "base_model": student, "base_digest": digest, "data": data, "settings": settings}
    return job.model_copy(update={**changes, "keep_best": True, "drawn": False, "start": None, "start_digest": None})
