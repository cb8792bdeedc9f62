"""Which problems overlap a benchmark, and with which of its questions.

In: the benchmarks' problems, then problems. Out: for each None or an `Overlap` that names
the benchmark and the question. N-grams are of the wordings' skeletons: numbers, single letters
and typesetting folded (`cuvee.problems.wording`). The rules, the first that holds is told:

1. `in_benchmark`: the same tokens as a benchmark question.
2. `overlaps_benchmark`: half of the 6-grams of the shorter text in common with *one* question,
   and these at least `LONG`, or half of the longer's too, or all of the shorter's and at least
   `WHOLE`; and all numbers of one of the two in the other, as often. So a question inside a
   longer text is found, and the reverse; one with renamed variables; and one with a word changed.
3. `rewords_benchmark`: exactly the numbers of a question, and enough of its words: the share
   of the shorter's 3-grams times the digits in the different numbers is at least `EVIDENCE`
   (a fifth of the words will do where the numbers have ten digits; four digits at least).
4. `benchmark_template`: another question of the same form: `ALIKE` of the longer's 6-grams
   in common, at least `WORDS` words, but other numbers.

Two problems of one generator are compared by rule 1 alone: their questions share a template
and are told apart by construction. Texts whose skeleton has under 6 tokens are compared by
rules 1 and 3 alone: "What is 17 + 5?" has a form that says nothing.

Measured, looked at by eye. GSM8K's training set against its test set: 2 templates. MATH's
7,474 against MATH-500: 28 overlaps, 2 reworded, 19 templates; of these 49, about ten share
no more than a long phrase or a list of options (another equation with the same "(A) Line (B)
Circle ..."). AIME 2024 and 2025 in other typography: 60 of 60 found. Of ten published
variations of test questions nine are found: six copies, renamed variables, a word changed, a
sentence reworded around the same formula. Missed is "What is 6(2i+1)-3i" for "Evaluate
(1+2i)6-3i": short, and in another order. So is every translation, every paraphrase that has
few digits or writes them out, and a template in which more than a fifth was reworded.

Time is linear in the problems; a problem costs more, the more questions share its phrases.
Only the benchmarks are held, and a batch of problems.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cuvee.problems.gram_index import GramIndex, Shared, build_gram_index, find_shared
from cuvee.problems.word_kernels import Hashes, grams, in_common
from cuvee.problems.wording import (
    count_words,
    number_keys,
    numbers,
    read_in_batches,
    read_wordings,
    skeletons,
    split,
    text_keys,
    tokens,
)
from cuvee.records import Problem

N = 6
SHARE = 0.5
LONG, WHOLE = 12, 6
DIGITS, EVIDENCE = 4, 2.0
ALIKE, WORDS = 0.8, 10
REASONS = ("in_benchmark", "overlaps_benchmark", "rewords_benchmark", "benchmark_template")
"""In the order of the rules."""


class Known(NamedTuple):
    """One question of a benchmark, ready for comparison."""

    benchmark: str
    problem: Problem
    numbers: Counter[str]
    words: int
    trigrams: Hashes
    """Distinct 3-grams of the skeleton, for rule 3; none where there are too few digits."""


@dataclasses.dataclass(frozen=True)
class Index:
    """The benchmarks' questions: in order, by their tokens, by their numbers, by 6-grams."""

    known: Sequence[Known]
    exact: Mapping[bytes, Known]
    by_numbers: Mapping[int, Sequence[Known]]
    grams: GramIndex


@dataclasses.dataclass(frozen=True)
class Overlap:
    """The benchmark question that a problem overlaps."""

    reason: str
    """One of `REASONS`."""
    benchmark: str
    problem: Problem
    share: float
    """Of the n-grams that the rule compares, in (0, 1]; 1 for the same tokens."""

    @property
    def detail(self) -> str:
        """Return a line for people."""
        question = self.problem.question[:120]
        return f"{self.benchmark} {self.problem.id} (share {self.share:.2f}): {question}"


def build_index(benchmarks: Mapping[str, Sequence[Problem]]) -> Index:
    """Return the index of benchmarks' problems, by the benchmark's name."""
    held = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    wordings = read_wordings([problem.question for _, problem in held])
    folded = skeletons(wordings)
    known = [_known(*pair, skeleton) for pair, skeleton in zip(held, split(folded), strict=True)]
    by_numbers: dict[int, list[Known]] = defaultdict(list)
    for key, question in zip(number_keys(wordings), known, strict=True):
        if len(question.trigrams):
            by_numbers[key].append(question)
    # Reversed, so that of the same question in two benchmarks the first is named.
    exact = dict(zip(reversed(text_keys(wordings)), reversed(known), strict=True))
    grams_of = build_gram_index(folded.hashes, folded.starts, n=N)
    return Index(known, exact, dict(by_numbers), grams_of)


def find_overlap(problem: Problem, index: Index) -> Overlap | None:
    """Return the benchmark question a problem overlaps most, or None."""
    ((_, overlap),) = find_overlaps([problem], index)
    return overlap


def find_overlaps(
    problems: Iterable[Problem], index: Index
) -> Iterator[tuple[Problem, Overlap | None]]:
    """Yield each problem, in order, with the benchmark question it overlaps most, or None.

    Problems are read some thousand ahead of what is yielded. The overlap by the earliest rule
    is told, by that rule the one with the highest share, of equals the first of the index.
    """
    for batch, wordings in read_in_batches(problems):
        folded = skeletons(wordings)
        shared = find_shared(index.grams, folded.hashes, folded.starts, share=SHARE)
        pairs = _pairs(shared)
        columns = (batch, text_keys(wordings), number_keys(wordings), split(folded))
        for number, (problem, key, numbers_key, skeleton) in enumerate(zip(*columns, strict=True)):
            exact = index.exact.get(key)
            if exact is not None:
                yield problem, Overlap("in_benchmark", exact.benchmark, exact.problem, 1.0)
                continue
            reworded = index.by_numbers.get(numbers_key, ())
            found = [_by_numbers(problem, skeleton, question) for question in reworded]
            if number in pairs:
                found += _by_grams(problem, index.known, sorted(pairs[number]))
            yield problem, _worst(found)


class _Pair(NamedTuple):
    """A question that shares 6-grams with a problem, and how many."""

    held: int
    shared: int
    smaller: int
    larger: int


def _pairs(shared: Shared) -> dict[int, list[_Pair]]:
    """Return the pairs of rules 2 and 4 as far as 6-grams tell, by the text's number."""
    whole = (shared.grams == shared.smaller) & (shared.grams >= WHOLE)
    enough = (shared.grams >= LONG) | (shared.grams >= SHARE * shared.larger) | whole
    columns = (shared.text, shared.held, shared.grams, shared.smaller, shared.larger)
    pairs: dict[int, list[_Pair]] = defaultdict(list)
    for text, *pair in np.stack(columns, axis=1)[enough].tolist():
        pairs[text].append(_Pair(*pair))
    return pairs


def _worst(found: Sequence[Overlap | None]) -> Overlap | None:
    overlaps = [overlap for overlap in found if overlap is not None]
    return min(overlaps, key=lambda o: (REASONS.index(o.reason), -o.share), default=None)


def _known(name: str, problem: Problem, skeleton: Hashes) -> Known:
    words = tokens(problem.question)
    own = numbers(words)
    trigrams = np.unique(grams(skeleton, 3)) if _digits(own) >= DIGITS else skeleton[:0]
    return Known(name, problem, own, count_words(words), trigrams)


def _by_grams(
    problem: Problem, known: Sequence[Known], pairs: Sequence[_Pair]
) -> list[Overlap | None]:
    """Return the overlaps of a problem by rules 2 and 4."""
    words = tokens(problem.question)
    own, count = numbers(words), count_words(words)
    found = [_by_rule_2(problem, own, known[pair.held], pair) for pair in pairs]
    return found + [_by_rule_4(problem, count, known[pair.held], pair) for pair in pairs]


def _by_rule_2(problem: Problem, own: Counter[str], held: Known, pair: _Pair) -> Overlap | None:
    agree = own <= held.numbers or held.numbers <= own
    if not agree or _one_generator(problem, held.problem):
        return None
    share = pair.shared / pair.smaller
    return Overlap("overlaps_benchmark", held.benchmark, held.problem, share)


def _by_rule_4(problem: Problem, words: int, held: Known, pair: _Pair) -> Overlap | None:
    alike = pair.shared / pair.larger
    if alike < ALIKE or min(words, held.words) < WORDS or _one_generator(problem, held.problem):
        return None
    return Overlap("benchmark_template", held.benchmark, held.problem, alike)


def _by_numbers(problem: Problem, skeleton: Hashes, held: Known) -> Overlap | None:
    """Return the overlap by rule 3 with a question that has the same numbers."""
    if _one_generator(problem, held.problem):
        return None
    own = np.unique(grams(skeleton, 3))
    share = in_common(own, held.trigrams) / max(1, min(len(own), len(held.trigrams)))
    if share * _digits(held.numbers) < EVIDENCE:
        return None
    return Overlap("rewords_benchmark", held.benchmark, held.problem, share)


def _digits(own: Counter[str]) -> int:
    """Return how many digits the different numbers of a question have together."""
    return sum(sign.isdecimal() for number in own for sign in number)


def _one_generator(left: Problem, right: Problem) -> bool:
    return left.source == right.source and left.source.startswith(("generator:", "gym:"))
