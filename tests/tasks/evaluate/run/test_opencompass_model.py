"""OpenCompass's model, measure and sets of ours, in the evaluation environment, without a whole run: one process.

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
from pathlib import Path
import peft, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM
from datasets import Dataset
from opencompass.registry import ICL_PROMPT_TEMPLATES
from tasks.evaluate.run.opencompass_evaluators import ItemRougeEvaluator, WordTokenizer
from tasks.evaluate.run.opencompass_model import AnswerModel
from tasks.evaluate.run.opencompass_sets import SetRefused, build

base, folder = sys.argv[1:]

def ours_of(path, peft_path=None, seq_len=60, **decoding):
    return AnswerModel(
        boundary="|", threads=2, together=2, path=path, peft_path=peft_path, max_seq_len=seq_len,
        tokenizer_kwargs={"trust_remote_code": False}, generation_kwargs={"do_sample": False, **decoding},
        model_kwargs={"trust_remote_code": False, "device_map": "cpu", "torch_dtype": "torch.float32"},
    )

configs = {
    "p_tuning_v2": peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    "p_tuning": peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=16, task_type="CAUSAL_LM"),
    "prompt_tuning": peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
    "lora": peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
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
            parameter.data.normal_(std=0.2 if name == "lora" else 0.5)
    model.save_pretrained(f"{folder}/{name}")
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), f"{folder}/{name}").eval()
    ours = ours_of(base, f"{folder}/{name}", eos_token_id=tokenizer.eos_token_id)
    asked = [(prompts[0], "I am well."), (prompts[0], "Bad"), (prompts[1], "Paris is a city"), (prompts[2], "Yes.")]
    texts = ours.generate(prompts, 8)  # what it read of a prompt serves the likelihood of its one answer below
    losses = ours.get_ppl([f"{prompt}|{answer}" for prompt, answer in asked]).tolist()
    try:
        ours.get_ppl(["word " * 57 + "|a"])
        refused = ""
    except ValueError as error:
        refused = str(error)
    told[name] = {
        "losses": losses, "plain_losses": [plain_loss(model, *pair) for pair in asked],
        "texts": texts, "begun": len(ours.begun), "plain_texts": [plain_text(model, prompt) for prompt in prompts],
        "refused": refused,
    }

END = 339  # this model comes to it in some answers, and says the same three tokens over and over in others

def texts_alone(model, penalty):
    found = []
    for prompt in asked_for:
        ids = torch.tensor([ids_of(prompt)])
        settings = {"eos_token_id": END, "repetition_penalty": penalty, "max_new_tokens": 40, "do_sample": False}
        new = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings)[0, ids.shape[1]:]
        found.append(tokenizer.decode(new, skip_special_tokens=True))
    return found

quoting = "Hello,  and,  and,  and,  and,"
asked_for = [*prompts, quoting, "Once upon a time", "1 2 3 1 2 3 1 2 3", "Why?"]
told["alone"], tokenizer.pad_token = {}, tokenizer.pad_token or tokenizer.eos_token
wide = AutoModelForCausalLM.from_pretrained(base)
mistral = MistralConfig(**{**wide.config.to_dict(), "model_type": "mistral", "sliding_window": 16})
sliding = MistralForCausalLM(mistral)
sliding.load_state_dict(wide.state_dict())
sliding.save_pretrained(f"{folder}/sliding")
tokenizer.save_pretrained(f"{folder}/sliding")
for name, path, penalty in [("llama", base, 1.0), ("penalty", base, 1.3), ("sliding", f"{folder}/sliding", 1.0)]:
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    ours, passes = ours_of(path, seq_len=200, eos_token_id=END, repetition_penalty=penalty), []
    ours.model.register_forward_hook(lambda *_: passes.append(1))
    choices = [f"{prompt}|{answer}" for prompt in prompts for answer in ("yes", "no it is not", "yes and no")]
    told["alone"][name] = {
        "ours": ours.generate(asked_for, 40), "transformers": texts_alone(model, penalty),
        "passes": (passes.clear(), ours.generate([quoting], 12), len(passes))[2],
        "together": ours.get_ppl(choices).tolist(), "apart": [ours.get_ppl([one])[0] for one in choices],
        "items": [loss for at in (0, 3, 6) for loss in ours.get_ppl(choices[at:at + 3]).tolist()],
        "plain": [plain_loss(model, *one.split("|")) for one in choices],
    }
pairs = [("the cat on mat", "The cat sat on the mat."), ("我喜欢房子", "我喜欢红色的房子。"), ("", "Something."),
         ("One. Two, three", "one two three"), ("nothing", "else"), ("Да, требуется", "Нет, не требуется"),
         ("Båten får sjösättas.", "Båten får inte sjösättas."), ("필요합니다", "필요하지 않습니다")]
texts, references = zip(*pairs)
rows = Dataset.from_dict({"key": list("abcdefgh")})
words = WordTokenizer()
told["words"] = [words.tokenize(text) for text in WORDS]
told["rouge"] = [row["rouge_l"] for row in ItemRougeEvaluator().score(texts, references, rows)["details"]]
template = ICL_PROMPT_TEMPLATES.build(
    {"type": "tasks.evaluate.run.opencompass_evaluators.VerbatimTemplate", "template": "{text}"}
)
row = {"key": "k", "text": "{key} {text} {reference} {idx} {subdivision} {0}", "reference": "r", "idx": 1}
told["asked"] = [template.generate_item(row, output_field=column) for column in ("reference", None)]
told["sets"] = []
for asked in ({"opencompass": "gsm9k_gen", "only": []}, {"opencompass": "gsm8k_gen", "only": ["gsm9k"]}):
    Path("request.json").write_text(json.dumps({"sets": [{"name": "sums", "config": "", "most": 5, **asked}]}))
    try:
        build(Path("."))
    except SetRefused as error:
        told["sets"].append(str(error))
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


@pytest.mark.parametrize("method", ["p_tuning_v2", "p_tuning", "prompt_tuning", "lora"])
def test_likelihoods_are_those_of_one_plain_pass(told: dict[str, Any], method: str) -> None:
    assert told[method]["losses"] == pytest.approx(told[method]["plain_losses"], abs=2e-5)


@pytest.mark.parametrize("method", ["p_tuning_v2", "p_tuning", "prompt_tuning", "lora"])
def test_answers_asked_together_are_those_asked_alone(told: dict[str, Any], method: str) -> None:
    assert told[method]["texts"] == told[method]["plain_texts"]


@pytest.mark.parametrize("name", ["llama", "penalty", "sliding"])
def test_answers_are_those_of_transformers_one_by_one(told: dict[str, Any], name: str) -> None:
    """Seven prompts on two threads with two slots each.

    The sliding window is shorter than prompts and answers, so that answers are transformers' own.
    """
    found = told["alone"][name]
    assert found["ours"] == found["transformers"]
    assert len(set(map(len, found["ours"]))) > 2


def test_what_an_answer_quotes_takes_fewer_passes_than_tokens(told: dict[str, Any]) -> None:
    """Both repeat three tokens: the prompt has two more behind the last three, then the text three behind the last
    eight. Of 12 tokens 1, 3, 4, 4 a pass."""
    assert told["alone"]["llama"]["passes"] == 4


@pytest.mark.parametrize("name", ["llama", "sliding"])
def test_likelihoods_do_not_depend_on_the_other_items_and_hardly_on_the_choices_beside(
    told: dict[str, Any], name: str
) -> None:
    found = told["alone"][name]
    assert found["together"] == found["items"]
    assert found["together"] == pytest.approx(found["plain"], abs=2e-5)
    assert found["apart"] == pytest.approx(found["plain"], abs=2e-5)


def test_a_reference_goes_on_from_the_prompt_that_was_answered(told: dict[str, Any]) -> None:
    """Of three prompts two are asked for one answer each; the third for two, which are read beside each other."""
    assert told["lora"]["begun"] == 1


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


def test_a_benchmark_that_opencompass_does_not_have_is_refused_by_name(told: dict[str, Any]) -> None:
    assert told["sets"] == [
        "the set sums: OpenCompass has no configuration of data sets called gsm9k_gen",
        "the set sums: `only:` names gsm9k; there are gsm8k",
    ]
