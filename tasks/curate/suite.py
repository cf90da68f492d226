"""The Great Expectations suite for examples, and the facts about an example that it needs measured.

An example is a row of plain columns; whatever an expectation cannot see for itself (length in tokens, language)
is measured here and put beside the text, so that a failing row can be named by its id and looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tasks.errors import FlywheelError
from tasks.params import ValidateParams
from tasks.prompts import messages_of
from tasks.records import Example

if TYPE_CHECKING:
    import pandas as pd

SUITE = "examples"
TEXTS = ("id", "instruction", "output", "language", "origin", "category")
MEASURES = ("special_tokens", "output_tokens", "total_tokens", "language_confidence")
COLUMNS = (*TEXTS, "content", *MEASURES)
# Below this length a detector guesses; such texts are not judged by language.
MIN_CHARACTERS_TO_DETECT = 40


class SuiteError(FlywheelError):
    """The suite cannot be built for this domain."""


def measure(examples: list[Example], tokenizer: Any, system: str, language: str) -> pd.DataFrame:
    """One row an example: its texts, and prompt, output and total length in tokens, and confidence in `language`."""
    import pandas as pd

    confidence = language_confidence(language)
    rows = []
    for example in examples:
        system_text = example.system or system
        rendered = tokenizer.apply_chat_template(
            messages_of(system_text, example.prompt, example.history), tokenize=False, add_generation_prompt=True
        )
        prompt_tokens = len(tokenizer(rendered, add_special_tokens=False)["input_ids"])
        output_tokens = len(tokenizer(example.output, add_special_tokens=False)["input_ids"]) + 1
        row = example.model_dump(mode="json", include=set(TEXTS))
        row |= {
            "content": f"{example.system}\n{example.prompt}\n{example.output}",
            "special_tokens": sum(
                example.prompt.count(t) + example.output.count(t) for t in tokenizer.all_special_tokens
            ),
            "output_tokens": output_tokens,
            "total_tokens": prompt_tokens + output_tokens,
            "language_confidence": confidence(f"{example.prompt}\n{example.output}"),
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def language_confidence(language: str) -> Callable[[str], float]:
    """A function from a text to the confidence (0 to 1) that it is in `language`, an ISO 639-1 code. Works offline.

    The detector (lingua) spreads its confidence over all languages it knows, and English about Swedish law may get
    little of it; a text of another language gets next to none, which is what the bound in params.yaml separates.

    Raises:
        SuiteError: the detector does not know the language.
    """
    from lingua import IsoCode639_1, Language, LanguageDetectorBuilder

    try:
        wanted = Language.from_iso_code_639_1(IsoCode639_1.from_str(language.upper()))
    except ValueError:
        raise SuiteError(f"language {language!r} in domain.yaml is not one that can be detected") from None
    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

    def confidence(text: str) -> float:
        if len(text) < MIN_CHARACTERS_TO_DETECT:
            return 1.0
        # Its last digits differ from run to run (sums in no fixed order), and stage outputs may not.
        return float(f"{detector.compute_language_confidence(text, wanted):.3g}")

    return confidence


def build_suite(params: ValidateParams, language: str) -> Any:
    """The suite: schema, content, lengths in tokens, language, duplicates and row count."""
    import great_expectations as gx
    from great_expectations import expectations as gxe

    suite = gx.ExpectationSuite(name=SUITE)
    for expectation in (
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(COLUMNS)),
        gxe.ExpectTableRowCountToBeBetween(min_value=params.min_rows),
        gxe.ExpectColumnValuesToNotBeNull(column="id"),
        gxe.ExpectColumnValuesToMatchRegex(column="instruction", regex=r"\S"),
        gxe.ExpectColumnValuesToMatchRegex(column="output", regex=r"\S"),
        gxe.ExpectColumnValuesToBeUnique(column="content"),
        gxe.ExpectColumnValuesToBeInSet(column="special_tokens", value_set=[0]),
        gxe.ExpectColumnValuesToBeBetween(column="output_tokens", min_value=params.min_output_tokens),
        gxe.ExpectColumnValuesToBeBetween(column="total_tokens", max_value=params.max_total_tokens),
        gxe.ExpectColumnValuesToBeInSet(column="language", value_set=[language]),
        gxe.ExpectColumnValuesToBeBetween(column="language_confidence", min_value=params.min_language_confidence),
    ):
        suite.add_expectation(expectation)
    return suite
