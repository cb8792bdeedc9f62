"""Exact and near duplicates among problems that come as shards: those of `dedup`, found apart.

In: shards of texts, in order. Out: the same `Repeat`s as `cuvee.problems.dedup.find_repeats`
gives for all of them, one after the other. Four steps, each but the third a function mapped
over items, in this process or on a cluster:

1. of each shard, which buckets each text is in (`find_pairs`): hash of the bucket, number of
   the text. A text of 30 tokens and more is in one bucket for each band of its signature, a
   shorter one in that of its tokens;
2. pairs are grouped by bucket: a bucket belongs to the partition that its hash says, and of
   each partition the texts that meet are linked (`find_links`);
3. texts that are linked, directly or through others, are a component (here, in this process);
4. components go whole, several at once, to `find_in_group`, which is `dedup` itself.

The result is equal, not nearly so: what `dedup` says of a text depends on no text outside its
component. A component is compared by one worker, however large: where every problem is much
like the others (templates without numbers), that is what this cannot divide.

Held here: 8 bytes a text, some 40 while components are counted, and the repeats. On disk, in
`folder`, while it runs: 16 bytes a pair (256 a long text), and the texts that are linked. A
partition's worker holds some 60 bytes a pair, of `PARTITION_PAIRS`: 16 MB; from 16 million long
texts on there are `PARTITIONS`, and each is larger.
"""

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.problems.dedup import SHORTEST, Kept, Repeat, find_more
from cuvee.problems.signatures import bucket_hashes, signatures
from cuvee.problems.word_kernels import Counts, kernel, number_hashes, text_hashes
from cuvee.problems.wording import read_wordings
from cuvee.progress import bar
from cuvee.records import Problem

PARTITION_PAIRS = 1 << 18
"""4 MB: a cluster's driver holds four partitions a CPU at once."""
PARTITIONS = 1024
"""The most partitions: each is a file that every shard adds to."""
GROUP_TEXTS = 4096
"""Texts of components that go to a worker together, or one component if it is larger."""

PAIR = np.dtype([("bucket", "<u8"), ("number", "<i8")])
Pairs = NDArray[Any]
"""Of `PAIR`."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class Mapped(Protocol):
    """What maps a function over items, results in order: the builtin `map` does."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Result]:
        """Yield the result of each item."""


class Text(NamedTuple):
    """What is needed of a problem."""

    id: str
    source: str
    question: str


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How the work is divided; what is found does not depend on it. All at least 1."""

    partition_pairs: int = PARTITION_PAIRS
    group_texts: int = GROUP_TEXTS


SIZES = Sizes()


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found among all texts."""

    repeats: dict[int, Repeat]
    """By the number of the text that repeats another; numbers run through all shards from 0."""
    cut: int
    """Texts that are like more others than were compared."""


def find_repeats(
    shards: Callable[[], Iterable[Sequence[Text]]],
    *,
    count: int,
    folder: Path,
    mapped: Mapped,
    label: str,
    sizes: Sizes,
) -> Found:
    """Return what the texts of all shards repeat.

    `shards` is called twice and yields the same each time, `count` texts in all. `folder`
    exists and is empty; what is left in it is scratch. Raises what `mapped` does, and OSError
    (disk full).
    """
    parent = np.arange(count, dtype=np.int64)
    with bar(f"{label}: hashed", total=count, unit="problems") as tick:
        partitions = _shuffle(shards(), count, folder=folder, mapped=mapped, sizes=sizes, tick=tick)
    for links in mapped(find_links, map(_read_pairs, partitions)):
        _join(parent, np.array(links))
    groups = _groups(parent, sizes.group_texts)
    paths = _write_groups(shards(), groups, folder)
    repeats: dict[int, Repeat] = {}
    cut = 0
    with bar(f"{label}: compared", total=int((groups >= 0).sum()), unit="problems") as tick:
        for group in mapped(find_in_group, (path.read_bytes() for path in paths)):
            repeats.update(group.repeats)
            cut += group.cut
            tick(group.texts)
    return Found(repeats, cut)


class Hashed(NamedTuple):
    """The buckets of a shard's texts."""

    pairs: Pairs
    """By partition."""
    ends: list[int]
    """Where the pairs of each partition end."""
    texts: int


def find_pairs(shard: tuple[int, Sequence[str]], *, partitions: int) -> Hashed:
    """Return the buckets of a shard's texts.

    `shard`: the number of its first text, and the texts.
    """
    first, questions = shard
    wordings = read_wordings(questions)
    hashes, starts = wordings.hashes, wordings.starts
    is_long = np.diff(starts) >= SHORTEST
    numbers = number_hashes(hashes, wordings.kinds, starts)
    long = np.flatnonzero(is_long)
    buckets = bucket_hashes(signatures(hashes, starts)[long], numbers[long])
    short = np.flatnonzero(~is_long)
    pairs = np.empty(buckets.size + len(short), dtype=PAIR)
    pairs["bucket"] = np.concatenate([buckets.ravel(), text_hashes(hashes, starts)[short, 0]])
    pairs["number"] = np.concatenate([np.repeat(long, buckets.shape[1]), short]) + first
    partition = (pairs["bucket"] % np.uint64(partitions)).astype(np.int64)
    ends = np.cumsum(np.bincount(partition, minlength=partitions))
    return Hashed(pairs[np.argsort(partition, kind="stable")], ends.tolist(), len(questions))


def find_links(pairs: Pairs) -> Counts:
    """Return pairs of numbers, [links, 2], that join all texts of each bucket."""
    ordered = pairs[np.argsort(pairs["bucket"], kind="stable")]
    buckets, numbers = ordered["bucket"], ordered["number"]
    met = buckets[1:] == buckets[:-1]
    links = np.stack([numbers[:-1][met], numbers[1:][met]], axis=1)
    return np.unique(links, axis=0)


class Group(NamedTuple):
    """What was found in whole components."""

    repeats: list[tuple[int, Repeat]]
    cut: int
    texts: int


def find_in_group(lines: bytes) -> Group:
    """Return what the texts of whole components repeat: lines of `_write_groups`, in order."""
    rows = [json.loads(line) for line in lines.splitlines()]
    kept = Kept()
    found = find_more((_problem(*text) for _, *text in rows), kept)
    repeats = [(row[0], repeat) for row, repeat in zip(rows, found, strict=True) if repeat]
    return Group(repeats, kept.buckets.cut, len(rows))


def _problem(identity: str, source: str, question: str) -> Problem:
    return Problem(identity, "", source, question, "", "", None, None, "{}")


def _shuffle(
    shards: Iterable[Sequence[Text]],
    count: int,
    *,
    folder: Path,
    mapped: Mapped,
    sizes: Sizes,
    tick: Callable[[int], None],
) -> list[Path]:
    """Write the pairs of all shards by partition; return the files."""
    most = max(1, 16 * count // sizes.partition_pairs)
    paths = [folder / f"pairs-{number}" for number in range(min(PARTITIONS, most))]
    for path in paths:
        path.touch()

    def numbered() -> Iterator[tuple[int, list[str]]]:
        first = 0
        for shard in shards:
            yield first, [text.question for text in shard]
            first += len(shard)

    find = functools.partial(find_pairs, partitions=len(paths))
    for hashed in mapped(find, numbered()):
        begins = [0, *hashed.ends[:-1]]
        for path, begin, end in zip(paths, begins, hashed.ends, strict=True):
            _append(path, hashed.pairs[begin:end].tobytes())
        tick(hashed.texts)
    return paths


def _append(path: Path, data: bytes) -> None:
    if data:
        with path.open("ab") as file:
            file.write(data)


def _read_pairs(path: Path) -> Pairs:
    return np.fromfile(path, dtype=PAIR)


@kernel
def _root(parent: Counts, number: int) -> int:
    """Return the least number of a component as far as it is known; shorten the way to it."""
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


@kernel
def _join(parent: Counts, links: Counts) -> None:
    """Make one component of the two of each link."""
    for link in range(len(links)):
        left, right = _root(parent, links[link, 0]), _root(parent, links[link, 1])
        parent[max(left, right)] = min(left, right)


@kernel
def _roots(parent: Counts) -> Counts:
    found = np.empty_like(parent)
    for number in range(len(parent)):
        found[number] = _root(parent, number)
    return found


def _groups(parent: Counts, texts: int) -> Counts:
    """Return the group of each text; -1 where it is linked to none."""
    roots = _roots(parent)
    sizes = np.bincount(roots, minlength=len(roots))
    sizes[sizes == 1] = 0
    group = (np.cumsum(sizes) - sizes) // texts
    group[sizes == 0] = -1
    return np.asarray(group[roots], dtype=np.int64)


def _write_groups(shards: Iterable[Sequence[Text]], groups: Counts, folder: Path) -> list[Path]:
    """Write the texts of each group, in order, a line each with their number."""
    first = 0
    for shard in shards:
        own = groups[first : first + len(shard)]
        lines: dict[int, list[str]] = defaultdict(list)
        for place in np.flatnonzero(own >= 0).tolist():
            lines[int(own[place])].append(json.dumps([first + place, *shard[place]]) + "\n")
        for group, told in lines.items():
            _append(folder / f"group-{group}", "".join(told).encode("ascii"))
        first += len(shard)
    return [folder / f"group-{group}" for group in np.unique(groups[groups >= 0]).tolist()]
