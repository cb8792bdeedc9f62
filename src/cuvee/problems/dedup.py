"""Exact and near duplicates among problems; the first of each stays.

In: problems in order. Out: for each, None or the earlier problem it repeats. Exact means
the same tokens (`cuvee.problems.wording`). Near means a Jaccard similarity of the word
5-grams of at least 0.9 *and* the same numbers: problems that differ in their numbers alone
are different problems. Near duplicates are looked for in questions of 30 tokens and more;
with 0.9, one replaced word is tolerated from 91 tokens on, wherever it stands.

Time is linear in the number of problems. Held of each kept problem are its id and a hash,
and of those of 30 tokens and more the question in UTF-8 and what `cuvee.problems.signatures`
holds: about 0.9 GB for a million problems of 300 characters, whatever else they carry.
MinHash and banding find the candidates, which are then compared exactly (n-grams as 64-bit
hashes), so nothing is dropped by chance; of pairs at exactly 0.9 one in 10,000 is missed.
What a problem repeats depends on those alone that it shares a bucket or all tokens with,
directly or through others: so groups of them may be compared apart, and on many machines
(`cuvee.problems.shard_dedup`). Not found: paraphrases, translations, and problems whose
variables were renamed.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cuvee.problems.signatures import Buckets, add, empty_buckets, look, shingles, signatures
from cuvee.problems.word_kernels import Bytes, Hashes, in_common, number_hashes
from cuvee.problems.wording import Wordings, read_in_batches, read_wordings, split, text_keys
from cuvee.progress import warn
from cuvee.records import Problem

SHORTEST = 30
SIMILARITY = 0.9


class Original(NamedTuple):
    """The earlier problem that one repeats."""

    id: str
    source: str


@dataclasses.dataclass(frozen=True)
class Repeat:
    """Which earlier problem a problem repeats."""

    reason: str
    """`exact_duplicate` or `near_duplicate`."""
    of: Original
    similarity: float
    """Jaccard similarity in [0.9, 1]; 1 for an exact one."""

    @property
    def detail(self) -> str:
        """Return a line for people."""
        return f"repeats {self.of.id} of {self.of.source} (similarity {self.similarity:.2f})"


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is held of the problems that stayed."""

    first: dict[bytes, Original] = dataclasses.field(default_factory=dict)
    """By the key of their tokens."""
    near: dict[bytes, Repeat] = dataclasses.field(default_factory=dict)
    """What the near duplicates repeat, by the key of their tokens: for copies of them."""
    buckets: Buckets = dataclasses.field(default_factory=empty_buckets)
    long: list[tuple[Original, bytes]] = dataclasses.field(default_factory=list)
    """Of each row of the buckets: whose it is, and its question."""


def find_repeats(problems: Iterable[Problem]) -> Iterator[Repeat | None]:
    """Yield for each problem, in order, the kept problem it repeats, or None.

    Problems are read some thousand ahead of what is yielded. Of two exact duplicates with
    different golds the first stays too: which of the golds is right cannot be told here.
    Where so many problems are alike that not all were looked at, a warning says for how many.
    """
    kept = Kept()
    yield from find_more(problems, kept)
    warn_of_cut(kept.buckets.cut)


def find_more(problems: Iterable[Problem], kept: Kept) -> Iterator[Repeat | None]:
    """Yield what `find_repeats` does, after the problems of `kept`; it grows as they come."""
    for batch, wordings in read_in_batches(problems):
        for problem, text in zip(batch, _texts(wordings), strict=True):
            yield _find_repeat(problem, text, kept)


def warn_of_cut(cut: int) -> None:
    """Say for how many problems not all that are alike were looked at (`Buckets.cut`)."""
    if cut:
        warn(f"duplicates: {cut} problems are like more others than were compared")


class _Text(NamedTuple):
    """What is compared of one question."""

    tokens: Hashes
    key: bytes
    numbers: np.uint64
    """Hash of the numbers, in whatever order."""
    signature: Bytes


def _texts(wordings: Wordings) -> Iterator[_Text]:
    hashes, starts = wordings.hashes, wordings.starts
    keys = text_keys(wordings)
    numbers = number_hashes(hashes, wordings.kinds, starts)
    return map(_Text, split(wordings), keys, numbers, signatures(hashes, starts))


def _find_repeat(problem: Problem, text: _Text, kept: Kept) -> Repeat | None:
    """Return what a problem repeats; what repeats nothing is added to `kept`."""
    same = kept.first.get(text.key)
    if same is not None:
        return Repeat("exact_duplicate", same, 1.0)
    if text.key in kept.near:
        return kept.near[text.key]
    own = Original(problem.id, sys.intern(problem.source))
    if len(text.tokens) >= SHORTEST:
        rows = look(kept.buckets, text.signature, text.numbers)
        repeat = _nearest(text.tokens, [kept.long[row] for row in rows])
        if repeat is not None:
            kept.near[text.key] = repeat
            return repeat
        add(kept.buckets, text.signature, text.numbers)
        kept.long.append((own, problem.question.encode("utf-8", "surrogatepass")))
    kept.first[text.key] = own
    return None


def _nearest(own: Hashes, candidates: Sequence[tuple[Original, bytes]]) -> Repeat | None:
    """Return the candidate most similar; of several the first."""
    if not candidates:
        return None
    mine = np.unique(shingles(own))
    texts = [question.decode("utf-8", "surrogatepass") for _, question in candidates]
    others = [np.unique(shingles(other)) for other in split(read_wordings(texts))]
    found = [_share(mine, other) for other in others]
    similarity = max(found)
    if similarity < SIMILARITY:
        return None
    return Repeat("near_duplicate", candidates[found.index(similarity)][0], similarity)


def jaccard(left: Hashes, right: Hashes) -> float:
    """Return the Jaccard similarity, in [0, 1], of the 5-grams of two texts' tokens."""
    return _share(np.unique(shingles(left)), np.unique(shingles(right)))


def _share(left: Hashes, right: Hashes) -> float:
    shared = in_common(left, right)
    return shared / (len(left) + len(right) - shared)
