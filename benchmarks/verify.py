"""How fast verifying is, beside math-verify's own loop, bare forks and fresh sandboxes.

    python benchmarks/verify.py --data ../shared/data
    python benchmarks/verify.py --data ../shared/data --only codet

Prints Markdown tables. Math: real replies with published labels and golds dressed as replies;
pairs a second, and how many verdicts differ from the labels. Code: short programs over stdin;
the bare double fork has no isolation at all, the fresh sandbox is a new bubblewrap and a new
interpreter each. Memory: of this process over 100,000 rows. CodeT: 16,400 sampled programs,
twice. What takes turns is repeated `--repeats` times; the median is shown. Not here: whether
verdicts are right (`cuvee conformance`, tests/verify/test_real_*.py).
"""

import argparse
import gzip
import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from cuvee.recipe import Verify
from cuvee.verify.rows import check_rows

Row = dict[str, Any]
CORES = len(os.sched_getaffinity(0))
PARTS = ("math", "code", "memory", "codet")

BARE_FORK = """
import json, os, sys
for program, given in json.load(sys.stdin):
    stdin_out, stdin_in = os.pipe()
    stdout_out, stdout_in = os.pipe()
    first = os.fork()
    if first == 0:
        second = os.fork()
        if second == 0:
            os.dup2(stdin_out, 0); os.dup2(stdout_in, 1)
            for number in (stdin_out, stdin_in, stdout_out, stdout_in): os.close(number)
            sys.stdin, sys.stdout = open(0, closefd=False), open(1, 'w', closefd=False)
            exec(compile(program, 'main.py', 'exec'), {'__name__': '__main__'})
            sys.stdout.flush()
            os._exit(0)
        os.close(stdin_in)
        os.waitpid(second, 0)
        os._exit(0)
    os.close(stdin_out); os.close(stdout_in)
    os.write(stdin_in, given.encode()); os.close(stdin_in)
    said = b''
    while chunk := os.read(stdout_out, 65536): said += chunk
    os.close(stdout_out)
    os.waitpid(first, 0)
    assert said == b'6\\n', said
"""


def lines(path: Path) -> list[Row]:
    """Return the rows of a JSONL file, gzipped or not."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def math_rows(data: Path) -> tuple[list[Row], list[bool]]:
    """Return rows (gold, reply) and whether each reply is right, as published."""
    rows: list[Row] = []
    labels: list[bool] = []
    for row in lines(data / "outputs_gsm8k_openai_models" / "example_model_solutions.jsonl"):
        gold = row["ground_truth"].rpartition("A: ")[2]
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            # Their last line is `A: 18`; boxed, both sides read it the same way.
            reply, _, stated = row[model]["solution"].rpartition("A: ")
            rows.append({"gold": gold, "reply": f"{reply}\\boxed{{{stated}}}"})
            labels.append(row[model]["is_correct"])
    for row in lines(data / "outputs_qwen25math_rm_maj" / "math_cot_100.jsonl"):
        for reply, right in zip(row["response"], row["score"], strict=True):
            rows.append({"gold": row["gt"], "reply": reply})
            labels.append(right)
    for name, column in (("math500", "answer"), ("olympiadbench", "final_answer")):
        for row in lines(data / name / "test.jsonl"):
            value = row[column]
            gold = value[0] if isinstance(value, list) else value
            gold = gold.replace("$", "")
            rows.append({"gold": gold, "reply": f"The answer is $\\boxed{{{gold}}}$."})
            labels.append(True)
    return rows, labels


def by_math_verify(rows: Sequence[Row]) -> list[bool]:
    """Compare as people do: one loop in the main thread, golds boxed."""
    from math_verify import parse, verify

    logging.disable()
    return [bool(verify(parse(f"\\boxed{{{row['gold']}}}"), parse(row["reply"]))) for row in rows]


def by_ours(rows: Sequence[Row], *, processes: int) -> list[bool]:
    """Compare by `check_rows`."""
    limits = Verify(processes=processes)
    return [v.verdict == "correct" for v in check_rows(rows, verifier="math", limits=limits)]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds a call takes and what it returns."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def in_turns(ways: dict[str, Callable[[], Any]], *, repeats: int) -> dict[str, tuple[float, Any]]:
    """Call each way, in turns; return each one's median seconds and last result."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            taken, results[name] = timed(way)
            seconds[name].append(taken)
    return {name: (median(seconds[name]), results[name]) for name in ways}


def show_math(data: Path, *, step: int, repeats: int) -> None:
    """Print pairs a second and disagreements with the labels."""
    rows, labels = math_rows(data)
    rows, labels = rows[::step], labels[::step]
    by_ours(rows[:100], processes=CORES)  # workers stay between calls; their start is not timed
    taken = in_turns(
        {
            "math-verify, its own loop": lambda: by_math_verify(rows),
            "ours, 1 process": lambda: by_ours(rows, processes=1),
            f"ours, {CORES} processes": lambda: by_ours(rows, processes=CORES),
        },
        repeats=repeats,
    )
    print(f"\n| math: {len(rows)} pairs | s | pairs/s | × | labels agreed with |")
    print("|---|---|---|---|---|")
    slowest = next(iter(taken.values()))[0]
    for name, (seconds, verdicts) in taken.items():
        agreed = sum(said == label for said, label in zip(verdicts, labels, strict=True))
        speed = f"{len(rows) / seconds:,.0f} | {slowest / seconds:.1f}"
        print(f"| {name} | {seconds:.2f} | {speed} | {agreed} of {len(rows)} |")


def short_programs(count: int) -> list[tuple[str, str]]:
    """Return programs that differ, each with its input; all print 6."""
    program = "# {0}\nn, *xs = map(int, open(0).read().split())\nprint(sum(xs))\n"
    return [(program.format(number), "3\n1 2 3\n") for number in range(count)]


def by_bare_fork(programs: Sequence[tuple[str, str]]) -> None:
    """Run programs by double forks, one interpreter a core, nothing isolated."""
    started = []
    for part in range(CORES):
        process = subprocess.Popen([sys.executable, "-S", "-c", BARE_FORK], stdin=subprocess.PIPE)
        started.append((process, json.dumps(programs[part::CORES]).encode()))
    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(lambda pair: pair[0].communicate(pair[1]), started))
    if any(process.returncode for process, _ in started):
        raise RuntimeError("a program of the bare fork failed")


def by_fresh_sandbox(programs: Sequence[tuple[str, str]]) -> None:
    """Run programs by a new bubblewrap and a new interpreter each, one a core at once."""
    command = [
        shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--new-session",
        "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
        os.path.realpath(sys.executable), "-S", "-c",
    ]  # fmt: skip

    def run_one(pair: tuple[str, str]) -> None:
        done = subprocess.run(
            [*command, pair[0]], input=pair[1].encode(), capture_output=True, check=True
        )
        assert done.stdout == b"6\n"

    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(run_one, programs))


def by_sandbox(programs: Sequence[tuple[str, str]]) -> None:
    """Check programs by `check_rows`."""
    rows = [
        {
            "tests": json.dumps({"kind": "stdin", "cases": [{"input": given, "output": "6\n"}]}),
            "reply": f"```python\n{program}```",
        }
        for program, given in programs
    ]
    said = Counter(v.verdict for v in check_rows(rows, verifier="code"))
    assert said == {"correct": len(programs)}, said


def show_code(*, count: int, repeats: int) -> None:
    """Print programs a second."""
    programs = short_programs(count)
    by_sandbox(programs[:8])  # the warm server's start is not timed
    taken = in_turns(
        {
            "bare double fork, no isolation": lambda: by_bare_fork(programs),
            "ours, bubblewrap": lambda: by_sandbox(programs),
            "fresh sandboxed interpreter each": lambda: by_fresh_sandbox(programs),
        },
        repeats=repeats,
    )
    print(f"\n| code: {count} short programs, {CORES} cores | s | programs/s | share of bare |")
    print("|---|---|---|---|")
    bare = next(iter(taken.values()))[0]
    for name, (seconds, _) in taken.items():
        print(f"| {name} | {seconds:.2f} | {count / seconds:.0f} | {bare / seconds:.0%} |")


def resident_mb() -> float:
    """Return the MiB this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def show_memory(data: Path, *, count: int) -> None:
    """Print the memory of this process as rows go by."""
    known, _ = math_rows(data)

    def rows() -> Iterator[Row]:
        for number, row in enumerate(itertools.islice(itertools.cycle(known), count)):
            yield {**row, "id": str(number), "gold": f"{row['gold']}"}

    print(f"\n| memory: rows of {count:,} | this process, MiB |\n|---|---|")
    for number, _ in enumerate(check_rows(rows(), verifier="math"), start=1):
        if number % (count // 10) == 0:
            print(f"| {number:,} | {resident_mb():.0f} |", flush=True)


def codet_rows(data: Path) -> list[Row]:
    """Return the 16,400 sampled programs beside HumanEval's tests."""
    problems = lines(data / "humaneval" / "HumanEval.jsonl.gz")
    by_name = {problem["entry_point"]: problem for problem in problems}
    rows = []
    for outputs in lines(
        data / "outputs_codet_humaneval" / "humaneval_codegen16B_100samples.jsonl"
    ):
        names = re.findall(r"^def (\w+)\(", outputs["prompt"], re.MULTILINE)
        problem = by_name[names[-1]]
        code = f"{problem['test']}\ncheck({problem['entry_point']})\n"
        tests = json.dumps({"kind": "assert", "code": code})
        for sample in outputs["samples"]:
            reply = f"```python\n{outputs['prompt']}{sample}\n```"
            rows.append({"tests": tests, "reply": reply})
    return rows


def show_codet(data: Path, *, step: int) -> None:
    """Print throughput over sampled programs, and whether two runs say the same."""
    rows = codet_rows(data)[::step]
    runs = []
    print(f"\n| codet: {len(rows)} programs | s | programs/s | verdicts |\n|---|---|---|---|")
    for number in (1, 2):
        seconds, said = timed(
            lambda: [(v.verdict, v.reason) for v in check_rows(rows, verifier="code")]
        )
        runs.append(said)
        counts = ", ".join(f"{a} {b}: {n}" for (a, b), n in sorted(Counter(said).items()))
        print(
            f"| run {number} | {seconds:.1f} | {len(rows) / seconds:.0f} | {counts} |", flush=True
        )
    differ = [pair for pair in zip(*runs, strict=True) if pair[0] != pair[1]]
    print(f"\n{len(differ)} of {len(rows)} verdicts differ between the runs {Counter(differ)}")


def main() -> None:
    """Parse the command line and run what it names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--only", choices=PARTS, help="default: math, code and memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--programs", type=int, default=400)
    parser.add_argument("--memory-rows", type=int, default=100_000)
    parser.add_argument("--step", type=int, default=1, help="take every so many-th row")
    args = parser.parse_args()
    wanted = (args.only,) if args.only else ("math", "code", "memory")
    if "math" in wanted:
        show_math(args.data, step=args.step, repeats=args.repeats)
    if "code" in wanted:
        show_code(count=args.programs, repeats=args.repeats)
    if "memory" in wanted:
        show_memory(args.data, count=args.memory_rows)
    if "codet" in wanted:
        show_codet(args.data, step=args.step)


if __name__ == "__main__":
    main()
