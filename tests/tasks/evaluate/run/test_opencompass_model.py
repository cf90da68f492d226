"""OpenCompass's model and measure of ours, in the evaluation environment, without a whole run: one process for all.

With adapters that add virtual tokens, likelihoods and answers are those of peft alone: it gives other answers where
prompts are padded beside each other or a pass goes on from a cache, so each is compared with one plain pass over one
text without padding or cache. ROUGE is compared with figures worked out by hand.
"""

from __future__ import annotations

import json
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout

pytestmark = pytest.mark.slow

WORDS = {
    "Нет, не требуется!": ["нет", "не", "требуется"],
    "Båten får sjösättas, 3.5%": ["båten", "får", "sjösättas", "3.5%"],
    "아니요, 필요하지 않습니다": ["아니요", "필요하지", "않습니다"],
    "नहीं, ज़रूरी नहीं है": ["नहीं", "ज़रूरी", "नहीं", "है"],
    "لا، غير مطلوب": ["لا", "غير", "مطلوب"],
    "L'été au café": ["l", "été", "au", "café"],
    "ไม่ได้": ["ไ", "ม่", "ไ", "ด้"],
    "これはペン": ["こ", "れ", "は", "ペ", "ン"],
    "我喜欢红色的房子。": ["我", "喜欢", "红色", "的", "房子"],
    "C++ and AT&T don't": ["c++", "and", "at", "t", "don", "t"],
}

SCRIPT = (
    f"WORDS = {list(WORDS)!r}"
    + """
import json, sys
import peft, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from datasets import Dataset
from opencompass.registry import ICL_PROMPT_TEMPLATES
from tasks.evaluate.run.opencompass_model import AnswerModel, ItemRougeEvaluator

base, folder = sys.argv[1:]
configs = {
    "p_tuning_v2": peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    "p_tuning": peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=16, task_type="CAUSAL_LM"),
    "prompt_tuning": peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
}
prompts = ["Hello, how are you today my friend?", "The capital", "What is a permit? I need to know of a shed."]
answers = ["I am well.", "", "Paris is a city"]
tokenizer = AutoTokenizer.from_pretrained(base)

def ids_of(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]

@torch.no_grad()
def logits(model, ids):
    tensor = torch.tensor([ids])
    return model(input_ids=tensor, attention_mask=torch.ones_like(tensor)).logits[0, -len(ids):]

def plain_loss(model, prompt, answer):
    before, after = ids_of(prompt), ids_of(answer)
    found = logits(model, before + after)[len(before) - 1:-1].log_softmax(-1)
    return -float(found.gather(1, torch.tensor(after)[:, None]).mean())

def plain_text(model, prompt, tokens=8):
    ids, new = ids_of(prompt), []
    while len(new) < tokens and (not new or new[-1] != tokenizer.eos_token_id):
        new.append(int(logits(model, ids + new)[-1].argmax()))
    return tokenizer.decode(new, skip_special_tokens=True)

told = {}
for name, config in configs.items():
    torch.manual_seed(0)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.5)
    model.save_pretrained(f"{folder}/{name}")
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), f"{folder}/{name}").eval()
    ours = AnswerModel(
        boundary="|", threads=2, path=base, peft_path=f"{folder}/{name}", max_seq_len=60,
        tokenizer_kwargs={"trust_remote_code": False}, generation_kwargs={"do_sample": False},
        model_kwargs={"trust_remote_code": False, "device_map": "cpu", "torch_dtype": "torch.float32"},
    )
    asked = [(prompts[0], "I am well."), (prompts[0], "Bad"), (prompts[1], "Paris is a city"), (prompts[2], "Yes.")]
    losses = ours.get_ppl([f"{prompt}|{answer}" for prompt, answer in asked]).tolist()
    try:
        ours.get_ppl(["word " * 57 + "|a"])
        refused = ""
    except ValueError as error:
        refused = str(error)
    told[name] = {
        "losses": losses, "plain_losses": [plain_loss(model, *pair) for pair in asked],
        "texts": ours.generate(prompts, 8), "plain_texts": [plain_text(model, prompt) for prompt in prompts],
        "refused": refused,
    }
pairs = [("the cat on mat", "The cat sat on the mat."), ("我喜欢房子", "我喜欢红色的房子。"), ("", "Something."),
         ("One. Two, three", "one two three"), ("nothing", "else"), ("Да, требуется", "Нет, не требуется"),
         ("Båten får sjösättas.", "Båten får inte sjösättas."), ("필요합니다", "필요하지 않습니다")]
texts, references = zip(*pairs)
rows = Dataset.from_dict({"key": list("abcdefgh")})
from tasks.evaluate.run.opencompass_model import WordTokenizer
words = WordTokenizer()
told["words"] = [words.tokenize(text) for text in WORDS]
told["rouge"] = [row["rouge_l"] for row in ItemRougeEvaluator().score(texts, references, rows)["details"]]
template = ICL_PROMPT_TEMPLATES.build(
    {"type": "tasks.evaluate.run.opencompass_model.VerbatimTemplate", "template": "{text}"}
)
row = {"key": "k", "text": "{key} {text} {reference} {idx} {subdivision} {0}", "reference": "r", "idx": 1}
told["asked"] = [template.generate_item(row, output_field=column) for column in ("reference", None)]
print("TOLD" + json.dumps(told))
"""
)


@pytest.fixture(scope="module")
def told(root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("virtual")
    done = subprocess.run(
        [root / layout.EVALUATION_PYTHON, "-c", SCRIPT, tiny_model, folder],
        cwd=folder,
        env={**layout.child_environment(), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.split("TOLD")[1])
    return found


@pytest.mark.parametrize("method", ["p_tuning_v2", "p_tuning", "prompt_tuning"])
def test_likelihoods_are_those_of_one_plain_pass(told: dict[str, Any], method: str) -> None:
    assert told[method]["losses"] == pytest.approx(told[method]["plain_losses"], abs=2e-5)


@pytest.mark.parametrize("method", ["p_tuning_v2", "p_tuning", "prompt_tuning"])
def test_answers_asked_together_are_those_asked_alone(told: dict[str, Any], method: str) -> None:
    assert told[method]["texts"] == told[method]["plain_texts"]


def test_virtual_tokens_take_room_of_the_context(told: dict[str, Any]) -> None:
    """57 or more tokens and 5 virtual ones do not fit into 60."""
    assert "and 5 virtual ones do not fit" in told["prompt_tuning"]["refused"].replace("does", "do")


def test_braces_in_a_text_are_asked_as_they_stand(told: dict[str, Any]) -> None:
    assert told["asked"] == ["{key} {text} {reference} {idx} {subdivision} {0}"] * 2


def test_rouge_by_hand_in_five_languages(told: dict[str, Any]) -> None:
    """Longest common subsequences of words over both lengths, F1:

    the·cat·on·mat against the·cat·sat·on·the·mat: 2·4/(4+6) = 0.8. 我·喜欢·房子 against 我·喜欢·红色·的·房子:
    2·3/(3+5) = 0.75. Nothing against something: 0. Case and punctuation do not count: 1. No word in common: 0.
    да·требуется against нет·не·требуется: 2·1/(2+3) = 0.4. Three of four Swedish words: 2·3/(3+4). No Korean word: 0.
    """
    assert told["rouge"] == pytest.approx([0.8, 0.75, 0.0, 1.0, 0.0, 0.4, 6 / 7, 0.0], abs=1e-6)


def test_words_are_cut_as_their_writing_parts_them(told: dict[str, Any]) -> None:
    assert told["words"] == [[unicodedata.normalize("NFKC", word) for word in words] for words in WORDS.values()]
