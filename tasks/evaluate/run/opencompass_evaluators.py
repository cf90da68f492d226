"""How OpenCompass puts the project's rows and judges their answers: one item at a time.

Runs only in the evaluation environment. OpenCompass 0.5.4 fills in what looks like a column, and averages its scores.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from datasets import Dataset
from opencompass.openicl.icl_evaluator import AveragePPLEvaluator, JiebaRougeEvaluator
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.registry import ICL_EVALUATORS, ICL_PROMPT_TEMPLATES

# Writing without spaces between words: Thai and Lao, Burmese, Khmer, kana; Chinese characters.
SYLLABLES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


@ICL_PROMPT_TEMPLATES.register_module()
class VerbatimTemplate(PromptTemplate):
    """The row's text as it is: the parent would fill in `{reference}`, `{idx}` and the like where a text holds them."""

    def generate_item(self, entry: dict[str, Any], *_: Any, **__: Any) -> str:
        """The text of a row."""
        return str(entry["text"])


@ICL_EVALUATORS.register_module()
class ItemNLLEvaluator(AveragePPLEvaluator):
    """Keeps each item's value, named by the row's key, where OpenCompass reports only the mean."""

    def score(self, ppl: list[float], test_set: Dataset) -> dict[str, Any]:
        """Mean and details of the values that AnswerModel.get_ppl gave, in nats per token."""
        details = [{"key": key, "nll": value} for key, value in zip(test_set["key"], ppl, strict=True)]
        return {**super().score(ppl), "details": details}


@ICL_EVALUATORS.register_module()
class ItemRougeEvaluator(JiebaRougeEvaluator):
    """ROUGE-L F1 of each item (Lin 2004, sentence level): the longest common subsequence of words.

    The parent judges only what stands before the first full stop or comma, and averages.
    """

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        super().__init__()
        self.scorer = RougeScorer(["rougeL"], tokenizer=WordTokenizer())

    def score(self, predictions: list[str], references: list[str], test_set: Dataset) -> dict[str, Any]:
        """Mean and details, each between 0 and 1."""
        rows = zip(test_set["key"], predictions, references, strict=True)
        details = [
            {"key": key, "rouge_l": float(self.scorer.score(reference, prediction)["rougeL"].fmeasure)}
            for key, prediction, reference in rows
        ]
        return {"rouge_l": sum(row["rouge_l"] for row in details) / len(details), "details": details}


class WordTokenizer:
    """Words in lower case and compatibility form (NFKC); marks and spaces left out.

    A word is a run of letters, their accents and digits. Of writing without spaces between words, Chinese is cut by
    jieba, and kana, Thai, Lao, Khmer and Burmese into characters with their marks. jieba cuts ASCII too, into what it
    takes for words ("3.5%"); it would cut any other letter off.
    """

    def __init__(self) -> None:
        import jieba
        import regex

        jieba.setLogLevel("WARNING")
        # jieba keeps its dictionary in a marshal file; the shared temporary folder is no place to read that from.
        jieba.dt.tmp_dir = str(Path.cwd())
        self.cut = jieba.lcut
        spaced = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{SYLLABLES}{CHINESE}]]+"
        self.runs = regex.compile(rf"{spaced}|[{SYLLABLES}]\p{{M}}*", regex.VERSION1)

    def tokenize(self, text: str) -> list[str]:
        """Words of `text`, in order."""
        text, words, begin = unicodedata.normalize("NFKC", text).lower(), [], 0
        for run in self.runs.finditer(text):
            if not run.group().isascii():
                words += [*self.cut(text[begin : run.start()]), run.group()]
                begin = run.end()
        words += self.cut(text[begin:])
        return [word for word in words if any(character.isalnum() for character in word)]
