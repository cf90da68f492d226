"""Whether an answer built from triples says what they say."""

from __future__ import annotations

from tasks.curate.quality.quotes import letters


def states_a_triple(answer: str, evidence: str, question: str) -> bool:
    """Whether `answer` names a subject or object of its triples that `question` does not.

    Where the question names them all (is it so?), any of them will do. `evidence` is lines "subject | relation |
    object"; names are compared by their letters and digits. Evidence without a triple states nothing.
    """
    lines = [line.split(" | ") for line in evidence.splitlines()]
    names = {letters(part) for line in lines if len(line) >= 3 for part in (line[0], line[-1])} - {""}
    asked, said = letters(question), letters(answer)
    unknown = {name for name in names if name not in asked}
    return any(name in said for name in unknown or names)
