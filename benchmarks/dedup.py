"""How fast duplicates and overlaps are found, what is found, and what it takes of memory.

    python benchmarks/dedup.py --data ../shared/data
    python benchmarks/dedup.py --data ../shared/data --rows 1000000

Problems are sentences of GSM8K's training set put together at random (seeded), with copies
planted among them: exact ones in other typography, near ones with a word replaced in a text
of 100 tokens and more, the same text with other numbers, and questions of GSM8K's test set:
as they are, within a longer text, with a word replaced, with other numbers. Prints Markdown
tables: rows a second, peak memory (each way in a process of its own, rows read from a file),
and recall and precision by what was planted. Side by side: `datasketch` (MinHashLSH, 128
permutations, threshold 0.9) on the first `--others` rows, and a loop that does no more than
hash each row, which is the limit. Not here: real data (tests/problems/test_decontaminate.py).
"""

import argparse
import hashlib
import importlib.util
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cuvee.problems.decontaminate import build_index, find_overlaps
from cuvee.problems.dedup import find_repeats
from cuvee.problems.wording import tokens
from cuvee.records import Problem

SHARE = 0.01
"""Of each kind of planted row."""
DUPLICATES = ("exact", "near", "renumbered")
OVERLAPS = ("held_same", "held_within", "held_near", "held_template")

SENTENCE = re.compile(r"(?<=[.?!])\s+")


def compose(sentences: list[str], rng: random.Random) -> str:
    """Return a question of two to nine sentences."""
    return " ".join(rng.sample(sentences, rng.randrange(2, 10)))


def retyped(text: str, rng: random.Random) -> str:
    """Return the same tokens in other typography."""
    text = text.replace("$", "").replace(", ", " , ").replace("? ", " ?  ")
    return text.upper() if rng.random() < 0.5 else f"\u201c{text}\u201d"


def one_word_replaced(text: str, rng: random.Random) -> str:
    """Return the text with one of its words replaced."""
    words = text.split(" ")
    at = rng.choice([i for i, word in enumerate(words) if word.isascii() and word.isalpha()])
    return " ".join([*words[:at], "purple", *words[at + 1 :]])


def renumbered(text: str, rng: random.Random) -> str:
    """Return the text with other numbers."""
    return re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randrange(1, 9)), text)


def questions(path: Path) -> list[str]:
    """Return the questions of a JSONL file, each on one line."""
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return [" ".join(row["question"].split()) for row in rows]


def write_rows(data: Path, folder: Path, *, rows: int, seed: int) -> None:
    """Write `held.txt` and `rows.txt`: a kind, a tab and a question a line."""
    rng = random.Random(seed)
    train = questions(data / "gsm8k" / "train.jsonl")
    sentences = sorted({part for text in train for part in SENTENCE.split(text)})
    held = questions(data / "gsm8k" / "test.jsonl")
    (folder / "held.txt").write_text("".join(f"held\t{text}\n" for text in held))
    recent: list[str] = []
    with (folder / "rows.txt").open("w") as file:
        for number in range(rows):
            kind, text = _planted(rng, sentences, held, recent)
            file.write(f"{kind}\t{text}\n")
            if kind == "new" and number % 7 == 0:
                recent = [text, *recent[:200]]


def _planted(
    rng: random.Random, sentences: list[str], held: list[str], recent: list[str]
) -> tuple[str, str]:
    """Return a kind and a question: mostly a new one."""
    kinds = (*DUPLICATES, *OVERLAPS) if recent else ()
    place = int(rng.random() / SHARE)
    kind = kinds[place] if place < len(kinds) else "new"
    if kind == "new":
        return kind, compose(sentences, rng)
    if kind in DUPLICATES:
        source = rng.choice(recent)
        if kind == "near" and len(tokens(source)) < 100:
            kind = "exact"
        change = {"exact": retyped, "near": one_word_replaced, "renumbered": renumbered}[kind]
        return kind, change(source, rng)
    question = rng.choice(held)
    if kind == "held_within":
        return kind, f"{rng.choice(sentences)} {question}"
    changes = {"held_same": retyped, "held_near": one_word_replaced, "held_template": renumbered}
    return kind, changes[kind](question, rng)


def read_problems(path: Path, *, count: int | None = None) -> Iterator[Problem]:
    """Yield the rows of a file; what was planted stands in `place`."""
    with path.open() as file:
        for number, line in enumerate(file):
            if number == count:
                return
            kind, _, text = line.rstrip("\n").partition("\t")
            yield Problem(f"{number:016x}", "d", path.name, text, "", "math", "1", None, "{}", kind)


def ours_repeats(folder: Path, count: int | None) -> Counter[str]:
    """Count what `find_repeats` says of each kind of row."""
    rows = read_problems(folder / "rows.txt", count=count)
    kinds = (problem.place for problem in read_problems(folder / "rows.txt", count=count))
    found = zip(kinds, find_repeats(rows), strict=True)
    return Counter(f"{kind} {repeat.reason if repeat else '-'}" for kind, repeat in found)


def ours_overlaps(folder: Path, count: int | None) -> Counter[str]:
    """Count what `find_overlaps` says of each kind of row."""
    index = build_index({"held": list(read_problems(folder / "held.txt"))})
    found = find_overlaps(read_problems(folder / "rows.txt", count=count), index)
    return Counter(f"{problem.place} {o.reason if o else '-'}" for problem, o in found)


def datasketch_repeats(folder: Path, count: int | None) -> Counter[str]:
    """Count what MinHashLSH says of each kind, with the same tokens and 5-grams."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=0.9, num_perm=128)
    counts: Counter[str] = Counter()
    for problem in read_problems(folder / "rows.txt", count=count):
        words = [word.encode() for word in tokens(problem.question)]
        signature = MinHash(num_perm=128)
        grams = zip(words, words[1:], words[2:], words[3:], words[4:], strict=False)
        signature.update_batch([b" ".join(gram) for gram in grams])
        alike = index.query(signature)
        counts[f"{problem.place} {'near_duplicate' if alike else '-'}"] += 1
        if not alike:
            index.insert(problem.id, signature)
    return counts


def hashed(folder: Path, count: int | None) -> Counter[str]:
    """Do no more than keep the SHA-1 of each row."""
    seen = set()
    for problem in read_problems(folder / "rows.txt", count=count):
        seen.add(hashlib.sha1(problem.question.encode()).digest())
    return Counter({"distinct": len(seen)})


WAYS = {
    "find_repeats": ours_repeats,
    "find_overlaps": ours_overlaps,
    "datasketch MinHashLSH": datasketch_repeats,
    "SHA-1 of each row": hashed,
}


def run_way(name: str, folder: Path, count: int | None) -> None:
    """Run one way in this process and print what it took, as JSON."""
    WAYS[name](folder, 1)  # compiling and imports are not timed
    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    counts = WAYS[name](folder, count)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    took = {"seconds": seconds, "cpu": cpu, "counts": counts}
    took |= {"peak": after.ru_maxrss * 1024, "start": before.ru_maxrss * 1024}
    print(json.dumps(took))


def in_child(name: str, folder: Path, count: int | None) -> dict[str, Any]:
    """Return what one way takes in a process of its own."""
    command = [sys.executable, __file__, "--way", name, "--folder", str(folder)]
    command += [] if count is None else ["--rows", str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    took: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return took


def show_speed(results: dict[str, dict[str, Any]]) -> None:
    """Print rows a second and memory of each way."""
    print("\n| way | rows | s | CPU s | rows/s | peak RSS | over its start |")
    print("|---|---|---|---|---|---|---|")
    for name, took in results.items():
        rows = took["rows"]
        memory = f"{took['peak'] / 1e6:,.0f} MB | {(took['peak'] - took['start']) / 1e6:,.0f} MB"
        speed = f"{took['seconds']:.1f} | {took['cpu']:.1f} | {rows / took['seconds']:,.0f}"
        print(f"| {name} | {rows:,} | {speed} | {memory} |")


def show_found(title: str, counts: dict[str, int], kinds: Iterable[str]) -> None:
    """Print what was said of each kind of planted row and of the new ones."""
    print(f"\n| {title}: planted as | rows | said |")
    print("|---|---|---|")
    for kind in [*kinds, "new"]:
        said = {key.split()[1]: n for key, n in counts.items() if key.split()[0] == kind}
        told = ", ".join(f"{n:,} {reason}" for reason, n in sorted(said.items()))
        print(f"| {kind} | {sum(said.values()):,} | {told} |")


def main() -> None:
    """Make the rows, run every way and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--others", type=int, default=20000, help="rows for datasketch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_way(options.way, options.folder, options.rows)
        return
    rows = options.rows or 100_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(options.data, folder, rows=rows, seed=options.seed)
        results = {}
        for way in WAYS:
            other = way.startswith("datasketch")
            if other and importlib.util.find_spec("datasketch") is None:
                print("datasketch is not installed: left out")
                continue
            count = min(rows, options.others) if other else rows
            results[way] = in_child(way, folder, count) | {"rows": count}
    show_speed(results)
    for way, kinds in (("find_repeats", DUPLICATES), ("find_overlaps", OVERLAPS)):
        show_found(way, results[way]["counts"], kinds)
    if "datasketch MinHashLSH" in results:
        show_found("datasketch", results["datasketch MinHashLSH"]["counts"], DUPLICATES)


if __name__ == "__main__":
    main()
