"""Near duplicates: ours against rensa and datasketch, end to end, in one run, with how cost grows; and a million rows.

Run by `make bench`; `python -m tests.bench.bench_near --million` for the memory of a million rows of 150 tokens.

All three get the same raw texts and the same measure: Jaccard of runs of five characters of the normalised text, 128
permutations, threshold 0.8. Rensa and datasketch are used as their own pages show them, on lists of shingles made in
Python; rensa's second column gets words instead, which is another and coarser measure, for scale. Ours verifies every
pair by exact similarity; the peers report what their signatures say.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator

import numpy as np

from tasks.similarity.near import NearIndex, near_pairs, normalise, similarities
from tests.bench.table import options, show, timed

THRESHOLD, SHINGLE, PERMUTATIONS = 0.8, 5, 128
TOKENS = 150
SIZES = (1_000, 2_000, 4_000)
MILLION = 1_000_000


def texts(count: int) -> Iterator[str]:
    """Texts of 150 tokens; every tenth is one of the last thousand with three tokens changed (Jaccard some 0.9)."""
    generator = random.Random(7)
    words = ["".join(generator.choices("abcdefghijklmnop", k=generator.randint(3, 9))) for _ in range(4000)]
    recent: list[list[str]] = []
    for number in range(count):
        if number % 10 == 9:
            row = list(generator.choice(recent))
            for place in generator.sample(range(TOKENS), 3):
                row[place] = generator.choice(words)
        else:
            row = generator.choices(words, k=TOKENS)
            recent = [*recent[-999:], row]
        yield " ".join(row)


def character_runs(text: str) -> list[str]:
    """The shingles of a text as the peers take them."""
    clean = normalise(text)
    return [clean[start : start + SHINGLE] for start in range(len(clean) - SHINGLE + 1)]


def ours(rows: list[str]) -> int:
    """Rows that are the later one of a verified pair."""
    return len(np.unique(near_pairs(rows, THRESHOLD, SHINGLE, PERMUTATIONS)[:, 1]))


def rensa(rows: list[str], tokens: Callable[[str], list[str]] = character_runs) -> int:
    """Rows that rensa's own deduplicator does not keep."""
    from rensa import RMinHashDeduplicator

    dedup = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PERMUTATIONS, use_lsh=True)
    return int(dedup.add_pairs((str(number), tokens(row)) for number, row in enumerate(rows)).count(False))


def datasketch(rows: list[str]) -> int:
    """Rows that datasketch's index has a near one of when they come."""
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), 0
    for number, row in enumerate(rows):
        minhash = MinHash(num_perm=PERMUTATIONS)
        minhash.update_batch([shingle.encode() for shingle in character_runs(row)])
        found += bool(index.query(minhash))
        index.insert(number, minhash)
    return found


def row_of(count: int) -> tuple[str, ...]:
    """The three at one size; the quicker of two calls each."""
    rows = list(texts(count))
    our, found = timed(lambda: ours(rows), 2)
    peer, peer_found = timed(lambda: rensa(rows), 2)
    words, _ = timed(lambda: rensa(rows, str.split), 2)
    other, other_found = timed(lambda: datasketch(rows), 2)
    seconds = (f"{one:.2f}" for one in (our, peer, words, other))
    return str(count), *seconds, f"{peer / our:.1f}", f"{other / our:.0f}", f"{found}, {peer_found}, {other_found}"


def million() -> str:
    """Index a million rows as they come, verify the proposed pairs in a second pass; time and peak memory in words."""
    start, index, batch = time.perf_counter(), NearIndex(THRESHOLD, SHINGLE, PERMUTATIONS), []
    for row in texts(MILLION):
        batch.append(row)
        if len(batch) == 10_000:
            index.add(batch)
            batch = []
    index.add(batch)
    pairs = index.pairs()
    wanted = set(np.unique(pairs).tolist())
    named = {number: row for number, row in enumerate(texts(MILLION)) if number in wanted}
    near = int((similarities(pairs, named, SHINGLE) >= THRESHOLD).sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{MILLION} rows: {near} near pairs, {time.perf_counter() - start:.0f} s, {peak:.2f} GiB at most"


def main() -> None:
    """Print the table, or what a million rows took."""
    if options(__doc__, million=False).million:
        print(million())
        return
    columns = "rows | ours, s | rensa, s | rensa on words, s | datasketch, s | of rensa's speed | times datasketch's"
    title = "Near duplicates: texts of 150 tokens, one in ten a near duplicate"
    show(title, f"{columns} | found by ours, rensa, datasketch", map(row_of, SIZES))


if __name__ == "__main__":
    main()
