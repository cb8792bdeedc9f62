"""Which problems overlap a benchmark, and with which of its questions.

In: the benchmarks' problems, then problems one by one. Out: None or an `Overlap` that names
the benchmark and the question. The rule, in order:

1. The same tokens (`cuvee.problems.wording`) as a benchmark question: dropped.
2. At least `SHARE` of the 8-grams of the shorter of the two in common with *one* benchmark
   question, and every number of the shorter in the longer as often: dropped. The shorter
   counts, so a benchmark question inside a longer text is found, and the reverse.
3. Texts under 8 tokens are compared by rule 1 alone; so are two problems of one generator,
   whose questions share a template and are told apart by construction.

An 8-gram that occurs in many benchmark questions is a phrase of the field ("how many
ordered pairs of positive integers ..."); one common 8-gram alone is therefore no overlap.
Limits: a paraphrase, a translation and renamed variables are not found; a template whose
numbers were changed is a new problem here. Nothing is written.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cuvee.problems.wording import Hashes, ngrams, numbers, tokens
from cuvee.records import Problem

N = 8
SHARE = 0.5


class Known(NamedTuple):
    """One question of a benchmark, ready for comparison."""

    benchmark: str
    problem: Problem
    grams: int
    numbers: Counter[str]


@dataclasses.dataclass(frozen=True)
class Index:
    """The benchmarks' questions by their tokens and by their 8-grams."""

    exact: Mapping[tuple[str, ...], Known]
    by_gram: Mapping[int, Sequence[Known]]


@dataclasses.dataclass(frozen=True)
class Overlap:
    """The benchmark question that a problem overlaps."""

    reason: str
    """`in_benchmark` (the same tokens) or `overlaps_benchmark` (8-grams)."""
    benchmark: str
    problem: Problem
    share: float
    """Of the 8-grams of the shorter text, in [SHARE, 1]; 1 for the same tokens."""

    @property
    def detail(self) -> str:
        """Return a line for people."""
        question = self.problem.question[:120]
        return f"{self.benchmark} {self.problem.id} (share {self.share:.2f}): {question}"


def build_index(benchmarks: Mapping[str, Sequence[Problem]]) -> Index:
    """Return the index of benchmarks' problems, by the benchmark's name."""
    exact: dict[tuple[str, ...], Known] = {}
    by_gram: dict[int, list[Known]] = defaultdict(list)
    for name, problems in benchmarks.items():
        for problem in problems:
            words = tokens(problem.question)
            grams = ngrams(words, N)
            known = Known(name, problem, len(grams), numbers(words))
            exact.setdefault(tuple(words), known)
            for gram in grams.tolist():
                by_gram[gram].append(known)
    return Index(exact, dict(by_gram))


def find_overlap(problem: Problem, index: Index) -> Overlap | None:
    """Return the benchmark question a problem overlaps most, or None."""
    words = tokens(problem.question)
    same = index.exact.get(tuple(words))
    if same is not None:
        return Overlap("in_benchmark", same.benchmark, same.problem, 1.0)
    grams = ngrams(words, N)
    best: Overlap | None = None
    for known, shared in _shared(grams, index):
        share = shared / min(len(grams), known.grams)
        if share < SHARE or (best is not None and share <= best.share):
            continue
        if _one_generator(problem, known.problem) or not _numbers_agree(words, grams, known):
            continue
        best = Overlap("overlaps_benchmark", known.benchmark, known.problem, share)
    return best


def _shared(grams: Hashes, index: Index) -> list[tuple[Known, int]]:
    """Return the benchmark questions with common 8-grams, and how many, in a fixed order."""
    counts: dict[int, int] = defaultdict(int)
    found: dict[int, Known] = {}
    for gram in grams.tolist():
        for known in index.by_gram.get(gram, ()):
            counts[id(known)] += 1
            found[id(known)] = known
    return [(known, counts[key]) for key, known in found.items()]


def _one_generator(left: Problem, right: Problem) -> bool:
    return left.source == right.source and left.source.startswith(("generator:", "gym:"))


def _numbers_agree(words: Sequence[str], grams: Hashes, known: Known) -> bool:
    """Return whether the longer text has every number of the shorter, as often."""
    mine = numbers(words)
    return mine <= known.numbers if len(grams) <= known.grams else known.numbers <= mine
