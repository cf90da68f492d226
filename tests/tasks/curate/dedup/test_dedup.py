"""Of examples that say the same, the best one stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.params import DedupParams
from tasks.core.records import Example, Turn, make_example
from tasks.core.tables import read_batches, table_of, write_records
from tasks.curate.dedup.stage import KINDS, Verdicts, deduplicate, exact_text, receipts_of
from tasks.curate.dedup.substance import marks_of
from tasks.similarity.embedder import Embeddings
from tests.planted import Kind, among, measure, read_planted

PARAMS = DedupParams(near_threshold=0.8, shingle=5, permutations=128, semantic_threshold=None)


def example(question: str, answer: str, *sources: str, **fields: object) -> Example:
    made = {"language": "en", "origin": "human", "source": ("x", *sources)} | fields
    return make_example(instruction=question, output=answer, **made)


def apart(count: int) -> np.ndarray:
    """Unit vectors at right angles: nothing means the same as anything."""
    return np.eye(count, dtype=np.float32)


def deduplicated(examples: list[Example], embeddings: Embeddings, params: DedupParams) -> Verdicts:
    return deduplicate(lambda: [table_of(examples, Example)], embeddings, 0.85, params)[1]


def verdicts(examples: list[Example], whole: np.ndarray | None = None, question: np.ndarray | None = None) -> Verdicts:
    whole = apart(len(examples)) if whole is None else whole
    question = whole if question is None else question
    return deduplicated(examples, Embeddings([e.id for e in examples], question, whole), PARAMS)


def keepers(examples: list[Example], whole: np.ndarray | None = None, question: np.ndarray | None = None) -> list[int]:
    return verdicts(examples, whole, question).keeper.tolist()


def test_corrections_go_before_people_then_most_sources_then_the_longest_answer() -> None:
    short = example("What is the RUT deduction?", "A deduction.")
    long = example("What is the RUT deduction", "A tax deduction for household services.")
    sourced = example("what is the RUT  deduction?", "Tax.", "Law 67")
    made = example("What is the RUT deduction?", "A" * 90, "a", "b", "c", origin="self_kv")
    corrected = example("What is the RUT deduction?", "No.", origin="feedback")
    other = example("How high may a fence be?", "1.8 m.")
    assert keepers([short, long, other]) == [1, -1, -1]
    assert keepers([short, long, other, sourced, made]) == [3, 3, -1, -1, 3]
    assert keepers([short, long, other, sourced, made, corrected]) == [5, 5, -1, 5, 5, -1]


def test_of_two_corrections_the_newest_stays_however_long_the_older_one_is() -> None:
    old = example("How long does it take?", "Ten weeks, and longer in summer.", "a", "b", origin="feedback")
    new = example("How long does it take", "Since 2026 it is four weeks.", origin="feedback")
    assert keepers([old, new, example("How long does it take?", "Long.")]) == [1, -1, 1]


def test_what_holds_under_a_system_text_of_its_own_duplicates_nothing_else() -> None:
    question, alike = "How high may a fence be?", np.tile(apart(1), (3, 1))
    told = example(question, "1.1 m.", origin="feedback", system="Answer for corners only.")
    assert keepers([example(question, "1.8 m."), told, example(question + "?", "1.8 m.", "a")], alike) == [2, -1, -1]


def test_the_same_words_after_other_turns_ask_another_thing() -> None:
    before = (Turn(user="How high may a fence be?", assistant="That depends on your municipality."),)
    assert keepers([example("And how long?", "3 m."), example("And how long?", "2 m.", history=before)]) == [-1, -1]


def test_questions_that_differ_in_a_number_are_not_near_whatever_they_share() -> None:
    """One digit of 60 characters: Jaccard above 0.8."""
    one, other = (f"What does section {n} of the Planning and Building Act say about fences?" for n in (41, 42))
    assert keepers([example(one, "Height."), example(other, "Colour.")]) == [-1, -1]
    assert keepers([example(one, "Height."), example(one.replace("fences", "fence"), "Co.")]) == [-1, 0]


def test_a_template_with_another_name_is_not_near_but_the_same_triple_is() -> None:
    question = "Which body of the state passed the law that is called the {} Act of the Kingdom?"
    rail, road = (example(question.format(n), "The Riksdag.", f"t:{n}", origin="self_kv") for n in ("Rail", "Road"))
    again = example(question.format("Rail") + " Say", "The Riksdag did.", "t:Rail", origin="self_kv")
    assert keepers([rail, road, again]) == [2, -1, -1]


def test_a_chain_keeps_both_ends_and_every_dropped_one_duplicates_what_stays() -> None:
    """Of 16 shingles each, 11 are shared by neighbours (11 of 21), 6 by the ends (6 of 26). The middle goes."""
    letters = ("abcdefghijklmnopqrst", "fghijklmnopqrstuvwxy", "klmnopqrstuvwxyzéàüö")
    examples = [example(question, "x" * (30 - 9 * n)) for n, question in enumerate(letters)]
    near = PARAMS.model_copy(update={"near_threshold": 0.5})
    found = deduplicated(examples, Embeddings([e.id for e in examples], apart(3), apart(3)), near)
    assert found.keeper.tolist() == [-1, 0, -1]


def test_meaning_needs_the_whole_and_nearly_the_question() -> None:
    """Cosines of wholes 0.9 in each pair, of questions 0.8 and 0.7. The bounds are 0.85 and 0.75."""

    def pairs(*cosines: float) -> np.ndarray:
        vectors = np.zeros((4, 4), dtype=np.float32)
        for pair, cosine in enumerate(cosines):
            vectors[2 * pair, 2 * pair] = 1
            vectors[2 * pair + 1, 2 * pair : 2 * pair + 2] = cosine, (1 - cosine**2) ** 0.5
        return vectors

    examples = [example(q, "x" * (9 - n)) for n, q in enumerate(("Red?", "Rouge?", "Rot?", "Röd?"))]
    found = verdicts(examples, pairs(0.9, 0.9), pairs(0.8, 0.7))
    assert found.keeper.tolist() == [-1, 0, -1, -1]
    assert KINDS[found.kind[1]] == "semantic" and found.score[1] == pytest.approx(0.9)


def test_equal_questions_never_stay_both_when_the_best_of_them_goes() -> None:
    """The best of three equal questions says the same as a better one: all three go for that one."""
    better = example("Quite another wording of it?", "x" * 20, "a", "b")
    equal = [example("What is it?", "y" * n) for n in (9, 8, 7)]
    whole = apart(4)
    whole[1] = whole[0]
    assert keepers([better, *equal], whole) == [-1, 0, 0, 0]


def test_signs_and_ordinals_tell_questions_apart_and_clothes_do_not() -> None:
    assert exact_text(" Ｗhat is\tC++？ ") == exact_text("what is c++") != exact_text("What is C#?")
    assert exact_text("2+2?") != exact_text("2-2?") and exact_text("?!") == "?!"
    assert marks_of("第七十三条 at ７ and 7 + 7") == ["+", "7", "第七十三"]


ALLOWED = "Is it {}allowed to moor at the eastern jetty during the winter months with a trailer behind the boathouse?"
PARTIES = ("tenant", "landlord")
LICENCE = "May members {} a licence drive the large motor launch through the narrow strait in the summer months?"


@pytest.mark.parametrize(
    "one, other",
    [
        (("What is C?", "A language of 1972."), ("What is C++?", "A language of 1985.")),
        (("What is C++?", "A language of 1985."), ("What is C#?", "A language of 2000.")),
        (("What does x > y mean?", "x is greater."), ("What does x < y mean?", "x is smaller.")),
        (("What is .net?", "A platform."), ("What is net?", "What remains.")),
        ((ALLOWED.format(""), "Yes, it is allowed."), (ALLOWED.format("not "), "It is allowed; the sign is old.")),
        ((LICENCE.format("with"), "Yes."), (LICENCE.format("without"), "No.")),
        (("冬天可以在东码头停放船只和拖车吗？", "可以。"), ("冬天不可以在东码头停放船只和拖车吗？", "可以。")),
        (
            ("Får man grilla på bryggan efter klockan tio?", "Ja."),
            ("Får man inte grilla på bryggan efter klockan tio?", "Ja."),
        ),
        (
            ("Darf man mit Anhänger über die Brücke fahren?", "Ja."),
            ("Darf man ohne Anhänger über die Brücke fahren?", "Ja."),
        ),
        ((ALLOWED.format(""), "From six."), (ALLOWED.format("").replace("eastern", "western"), "From eight.")),
    ],
)
def test_a_sign_a_negation_or_another_word_with_another_answer_keeps_both(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    """Though all their meaning is shared: both vectors are equal."""
    same = np.ones((2, 1), dtype=np.float32)
    assert keepers([example(*one), example(*other)], same) == [-1, -1]


@pytest.mark.parametrize(
    "one, other",
    [
        ((ALLOWED.format(""), "Yes, on weekdays."), (ALLOWED.format("").replace("a trailer", "the trailer"), "Yes.")),
        ((ALLOWED.format(""), "Yes, on weekdays."), (ALLOWED.format("").replace("month", "mönth"), "Yes.")),
        ((LICENCE.format("with"), "Yes, they may."), (LICENCE.format("with").replace("members", "member"), "No.")),
        (("能不能在东码头停放船只？", "可以停放船只。"), ("能在东码头停放船只吗？", "可以。")),
    ],
)
def test_other_forms_and_other_words_with_one_answer_are_one_question(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    same = np.ones((2, 1), dtype=np.float32)
    assert keepers([example(*one), example(*other)], same) == [-1, 0]


@pytest.mark.parametrize(
    "one, other",
    [
        ("What does the fee include for paid members?", "What does the fee include for unpaid members?"),
        ("When must it be approved by the board?", "When must it be disapproved by the board?"),
        ("How do I enable two-factor login?", "How do I disable two-factor login?"),
        ("Is the refund at most half of it?", "Is the refund at least half of it?"),
        ("Which rules hold for contracts of before 2020?", "Which rules hold for contracts of after 2020?"),
        ("Can I cancel within one week?", "Can I cancel within two weeks?"),
        ("What is the penalty for a first offence?", "What is the penalty for a second offence?"),
        ("What does section 5 a of the act say?", "What does section 5 b of the act say?"),
        ("What is version IV of the form used for?", "What is version VI of the form used for?"),
        ("Är avgiften högst sju kronor?", "Är avgiften minst sju kronor?"),
        ("Vad gäller för gifta par?", "Vad gäller för ogifta par?"),
        ("停车最多多久？", "停车最少多久？"),
        ("2020年以前的规定是什么？", "2020年以后的规定是什么？"),
        ("Who pays for transport from Oslo to Rome?", "Who pays for transport from Rome to Oslo?"),
        ("Vad händer om köparen inte betalar säljaren?", "Vad händer om säljaren inte betalar köparen?"),
        ("从北京到上海怎么走？", "从上海到北京怎么走？"),
    ],
)
@pytest.mark.parametrize("origin", ["human", "feedback"])
def test_opposites_stay_apart_though_their_answers_agree(one: str, other: str, origin: str) -> None:
    """Also where one is a correction: it corrects its own question."""
    same = np.ones((2, 1), dtype=np.float32)
    assert keepers([example(one, "See the rules."), example(other, "See the rules.", origin=origin)], same) == [-1, -1]


def test_who_changes_places_with_whom_between_question_and_answer_keeps_both() -> None:
    question, answer = "What if the {} fails to pay the rent in time?", "The {} may give notice."
    one, other = (example(question.format(a), answer.format(b)) for a, b in (PARTIES, PARTIES[::-1]))
    assert keepers([one, other], np.ones((2, 1), dtype=np.float32)) == [-1, -1]


@pytest.mark.parametrize(
    "one, other",
    [
        ("How do ROT and RUT differ?", "How do RUT and ROT differ?"),
        ("Is the old boat or the new boat insured?", "Is the new boat or the old boat insured?"),
        ("小型车和大型车停车费多少？", "大型车和小型车停车费多少？"),
        ("How much is the fee in Oslo?", "In Oslo how much is the fee?"),
        ("停车费在上海是多少？", "在上海停车费是多少？"),
        ("What does it cost for a day?", "What does it cost for one day?"),
        ("Do I need a permit before building?", "Do I need a permit prior to building?"),
        ("What is the max height of a fence?", "What is the maximum height of a fence?"),
        ("May I install a heat pump instead?", "May I xnstall a heat pump xnstead?"),
    ],
)
def test_another_order_of_names_that_are_joined_and_another_word_of_one_sense_repeat(one: str, other: str) -> None:
    same = np.ones((2, 1), dtype=np.float32)
    assert keepers([example(one, "See the rules."), example(other, "See rules.")], same) == [-1, 0]


def test_a_correction_replaces_what_is_near_whatever_that_answers() -> None:
    corrected = example(ALLOWED.format("").replace("the winter", "winter"), "No, since 2026.", origin="feedback")
    assert keepers([example(ALLOWED.format(""), "Yes."), corrected]) == [1, -1]


@pytest.mark.parametrize("kind, planted, least", [("exact", 84, 84), ("near", 420, 416)])
def test_planted_duplicates_are_found_and_nothing_else_is_dropped(kind: Kind, planted: int, least: int) -> None:
    """All exact copies, 99% of the edited ones at Jaccard 0.8, no row for one that it does not repeat."""
    rows = among(read_planted(), kind)
    found = measure(rows, keepers([row.example() for row in rows]), kind)
    assert found.planted == planted and found.found >= least and found.false == 0


def test_every_row_has_one_receipt_that_names_the_row_that_stays() -> None:
    rows = [example("What is ROT?", "x" * 9), example("What is ROT?", "y"), example("What is RUT?", "y")]
    receipts = list(receipts_of([e.id for e in rows], verdicts(rows)))
    assert [r.example_id for r in receipts] == [row.id for row in rows]
    stays = (True, "no better duplicate", "", None)
    told = [(r.kept, r.reason, r.detail, r.score) for r in receipts]
    assert told == [stays, (False, "exact duplicate", rows[0].id, 1.0), stays]


def test_rows_of_several_batches_are_judged_as_those_of_one(tmp_path: Path) -> None:
    rows = [row.example() for row in read_planted() if row.kind in ("base", "exact")]
    rows = list({row.id: row for row in rows}.values())
    write_records(tmp_path / "examples.parquet", rows, Example)
    vectors = Embeddings([r.id for r in rows], apart(len(rows)), apart(len(rows)))
    ids, found = deduplicate(lambda: read_batches(tmp_path / "examples.parquet", 50), vectors, 0.85, PARAMS)
    assert found.keeper.tolist() == keepers(rows) and ids == [row.id for row in rows]


def test_no_rows_give_no_rows() -> None:
    assert keepers([], np.empty((0, 3), np.float32)) == []
