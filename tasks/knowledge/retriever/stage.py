"""Stage `retriever`: the domain's embedder, tuned on the domain's own questions in other words.

A general embedder knows neither the field's terms nor how laymen call them. Each rewording is drawn to the entry it
asks for and away from the other entries of its batch (in-batch negatives, Henderson et al. 2017, arXiv 1705.00652).
Where the domain has no rewordings the embedder stays as it is; where it has no sentence embedder there is none, and
passages are found by their words alone. Limit: equal bytes are promised on one kind of processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import fresh_directory, write_manifest, write_text
from tasks.core.hardware import resolve_precision
from tasks.core.params import Params, load_params
from tasks.core.records import Document, Example, Rewording, make_passage, read_own_jsonl
from tasks.core.stage import run_stage
from tasks.core.tables import read_batches, records_of
from tasks.similarity.embedder import embedder_folder, load_sentence_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STAGE = "retriever"
MODEL = "model"
BATCH = 32  # questions, each with the entries of all others as negatives
LEARNING_RATE = 5e-5


def pairs() -> list[tuple[str, str]]:
    """Each question in other words with the text of the entry that it asks for, and each on a document with that."""
    documents = {
        one.name: " ".join(one.text.split())
        for table in read_batches(layout.INGEST / "documents.parquet")
        for one in records_of(table, Document)
    }
    found, answers = [], {}
    for table in read_batches(layout.INGEST / "examples.parquet"):
        for one in records_of(table, Example):
            on = next((documents[name] for name in one.source if name in documents), "")
            entry = make_passage(kind="question", question=one.prompt, text=one.output, source=one.source[0])
            answers[one.source[0]] = on or entry.whole
            found += [(one.prompt, on)] if on else []
    rewordings = read_own_jsonl(layout.INGEST / "rewordings.jsonl", Rewording)
    return found + [(one.question, answers[one.source]) for one in rewordings if one.source in answers]


def tune(model: SentenceTransformer, found: list[tuple[str, str]], params: Params, scratch: Path) -> None:
    """Train the model in place on (question, text) pairs."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesSymmetricRankingLoss
    from sentence_transformers.training_args import BatchSamplers

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=params.retrieval.tuning_epochs,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        prompts={"question": model.prompts.get("query") or "", "text": model.prompts.get("document") or ""},
        seed=params.seed,
        use_cpu=True,
        bf16=resolve_precision("auto", {"use_cpu": True}) == "bf16",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=10,
    )
    rows = Dataset.from_dict({"question": [one for one, _ in found], "text": [one for _, one in found]})
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=rows, loss=MultipleNegativesSymmetricRankingLoss(model)
    ).train()


def stage() -> str:
    """Write data/retriever; returns what happened, in a sentence."""
    import torch

    params = load_params()
    domain = load_domain(params.domain)
    with fresh_directory(layout.RETRIEVER) as folder:
        if not domain.embedder.files or not params.retrieval.enabled:
            write_text(folder / "none.txt", "passages are found by their words alone\n")
            said = "no sentence embedder: passages are found by their words alone"
        else:
            torch.set_num_threads(params.embed.threads)
            torch.manual_seed(params.seed)
            model = load_sentence_model(embedder_folder(domain))
            found = pairs() if params.retrieval.tuning_epochs and domain.embedder.tuned else []
            if found:
                tune(model, found, params, folder / "scratch")
            model.half().save_pretrained(str(folder / MODEL), create_model_card=False)
            said = f"{domain.embedder.name} tuned on {len(found)} questions in other words" if found else "as it came"
        write_manifest(folder)
    return said


if __name__ == "__main__":
    run_stage(STAGE, stage)
