"""How long merging takes and how much memory: cuvee, mergekit and the floor, side by side.

    python benchmarks/merge.py --shapes qwen2.5-1.5b --methods arcee_fusion,linear,ties

Makes checkpoints in a real model's shapes (checkpoints.py), merges them with each method and
prints a Markdown table. What is timed is a whole process, start-up included; tools take turns
(A, B, C, A, B, C); inputs are in the page cache. The floor reads the same inputs and writes one
output: `cat INPUTS >/dev/null; cp A OUT`. Not here: whether a merge is right (tests/merge);
results are looked at for gross faults only.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.inputs.headers import TensorHeader, read_headers

CHUNK_BYTES = 1 << 23
"""Of a tensor that is looked at."""
LOOKED_AT = "model.layers.0.mlp.down_proj.weight"
"""The tensor that is compared with the inputs."""
WEIGHTS = "model.safetensors"
TOOLS = ("cuvee", "mergekit", "floor")
COLUMNS = (
    "method", "tool", "median s", "min s", "× floor", "mergekit's time ÷ this", "peak RSS",
    "first run",
)  # fmt: skip

PAIR = "models: [{model: A}, {model: B}]"
ON_BASE = (
    "base_model: A\nmodels: [{{model: B, parameters: {{{0}}}}}, {{model: C, parameters: {{{0}}}}}]"
)
METHODS = {
    "arcee_fusion": f"base_model: A\n{PAIR}",
    "linear": f"{PAIR}\nparameters: {{weight: 0.5}}",
    "slerp": f"base_model: A\n{PAIR}\nparameters: {{t: 0.5}}",
    "ties": ON_BASE.format("weight: 0.5, density: 0.5"),
    "dare_linear": ON_BASE.format("weight: 0.5, density: 0.5"),
    "task_arithmetic": ON_BASE.format("weight: 0.5"),
}
"""Rest of the config; A, B and C stand for the checkpoints."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One whole process."""

    seconds: float
    peak_bytes: int


Timings = dict[str, list[Timing]]
"""Of each tool, and of cuvee's `first` run."""


def main() -> None:
    """Make the checkpoints that are missing, run all methods, print the table."""
    given = arguments()
    layers = [] if given.layers is None else ["--layers", str(given.layers)]
    models = given.folder.absolute() / "-".join([given.shapes, *layers[1:]])
    wanted = "a,b,c" if any("model: C" in METHODS[method] for method in given.methods) else "a,b"
    make = [sys.executable, str(Path(__file__).with_name("checkpoints.py")), str(models)]
    make += ["--shapes", given.shapes, "--names", wanted, *layers]
    if subprocess.run(make, check=False).returncode:
        raise SystemExit("the checkpoints could not be made")
    needed, free = (models / "a" / WEIGHTS).stat().st_size, shutil.disk_usage(models).free
    if needed > 0.95 * free:
        raise SystemExit(f"{models}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    results = {method: run_method(method, models, given) for method in given.methods}
    notes = conditions(models, given)
    print("\n".join([*table(results), "", *(f"- {note}" for note in notes)]))
    if given.json:
        runs = {
            method: {tool: [dataclasses.asdict(run) for run in found] for tool, found in by.items()}
            for method, by in results.items()
        }
        given.json.write_text(json.dumps({"notes": notes, "runs": runs}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """Return the command line's arguments; stops the program where they are wrong."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--shapes", default="qwen2.5-1.5b", help="or qwen2.5-32b-4layers, tiny")
    parser.add_argument("--layers", type=int, metavar="N", help="other than the shapes' own")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--tools", default=",".join(TOOLS), help="separated by commas")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="timed runs of each")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="for all files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's numbers")
    parser.add_argument("--compiled", action="store_true", help="use kernels compiled before")
    given = parser.parse_args()
    for name, known in (("methods", METHODS), ("tools", TOOLS)):
        setattr(given, name, getattr(given, name).split(","))
        if unknown := sorted(set(getattr(given, name)) - set(known)):
            parser.error(f"--{name}: {', '.join(unknown)}; known are {', '.join(known)}")
    if given.repeat < 1 or (given.layers is not None and given.layers < 1):
        parser.error("--repeat and --layers: at least 1")
    return given


def run_method(method: str, models: Path, given: argparse.Namespace) -> Timings:
    """Merge with every tool in turns; return the timings."""
    body = METHODS[method]
    inputs = [models / name for name in ("abc" if "model: C" in body else "ab")]
    for folder in inputs:
        body = body.replace(f"model: {folder.name.upper()}", f"model: {json.dumps(str(folder))}")
    with tempfile.TemporaryDirectory(prefix=f"{method}-", dir=models) as place:
        config, out, log = (Path(place) / name for name in ("config.yml", "out", "log.txt"))
        dtypes = "dtype: bfloat16\nout_dtype: bfloat16\n"
        config.write_text(f"merge_method: {method}\n{body}\n{dtypes}")
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        if not given.compiled:
            environment["NUMBA_CACHE_DIR"] = str(Path(place) / "numba")
        commands = commands_for(config, out, inputs)
        tools = [tool for tool in commands if tool in given.tools]
        files = [str(folder / WEIGHTS) for folder in inputs]
        subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
        turns = [*["first"] * ("cuvee" in tools), *tools * given.repeat]
        timings: Timings = {turn: [] for turn in turns}
        for turn in turns:
            tool = "cuvee" if turn == "first" else turn
            timings[turn].append(timed(commands[tool], log=log, environment=environment))
            said = f"{method}, {tool}: {timings[turn][-1].seconds:.2f} s"
            print(said + " (first run)" * (turn == "first"), file=sys.stderr, flush=True)
            # In a process of its own: a child's peak memory begins at what its parent holds.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                fault = pool.apply(fault_in, (out, inputs, tool, method))
            if fault:
                raise SystemExit(f"{tool}, {method}: the result is wrong: {fault}")
            shutil.rmtree(out)
    return timings


def commands_for(config: Path, out: Path, inputs: Sequence[Path]) -> dict[str, list[str]]:
    """Return {tool: command}; mergekit only where it is installed."""
    files = " ".join(f"'{folder / WEIGHTS}'" for folder in inputs)
    floor = f"cat {files} >/dev/null; mkdir '{out}'; cp '{inputs[0] / WEIGHTS}' '{out}'"
    found = {"cuvee": [sys.executable, "-m", "cuvee.cli", "merge", str(config), str(out)]}
    beside = Path(sys.executable).with_name("mergekit-yaml")
    if program := str(beside) if beside.exists() else shutil.which("mergekit-yaml"):
        found["mergekit"] = [program, str(config), str(out), "--random-seed", "0"]
    return found | {"floor": ["sh", "-c", floor]}


def timed(command: Sequence[str], *, log: Path, environment: dict[str, str]) -> Timing:
    """Run a command; return its seconds, and the peak memory of it or any child of it."""
    os.sync()  # what was written before is not this command's burden
    with log.open("ab") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(errors="replace")[-3000:]
        raise SystemExit(f"{end}\nfailed ({process.returncode}): {' '.join(command)}")
    return Timing(seconds, usage.ru_maxrss * 1024)


def fault_in(out: Path, inputs: Sequence[Path], tool: str, method: str) -> str:
    """Return what is grossly wrong with a result; empty if nothing is."""
    if tool == "floor":
        same = (out / WEIGHTS).stat().st_size == (inputs[0] / WEIGHTS).stat().st_size
        return "" if same else "not copied"
    wanted, found = read_headers(inputs[0]).tensors, read_headers(out).tensors
    if found.keys() != wanted.keys():
        return f"other tensors: {sorted(found.keys() ^ wanted.keys())[:3]}"
    for name, tensor in found.items():
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, "BF16"):
            return f"{name}: {tensor.dtype} {tensor.shape}"
        if any(bool(((part & 0x7F80) == 0x7F80).any()) for part in words(tensor)):
            return f"{name}: NaN or infinite values"
    looked_at = [read_headers(folder).tensors[LOOKED_AT] for folder in (out, *inputs[:2])]
    merged, a, b = (np.concatenate(list(words(tensor))) for tensor in looked_at)
    if np.array_equal(merged, a) or np.array_equal(merged, b):
        return f"{LOOKED_AT} is that of one input"
    copied = float(np.mean((merged == a) | (merged == b)))
    least = {"cuvee": 1.0, "mergekit": 0.9}[tool]  # mergekit rounds A + (B - A)
    if method == "arcee_fusion" and copied < least:
        return f"{LOOKED_AT}: only {copied:.2%} of the weights are one input's"
    return ""


def words(tensor: TensorHeader) -> Iterator[NDArray[np.uint16]]:
    """Yield a tensor's 16-bit words, a part of them at a time."""
    with tensor.file.open("rb") as file:
        file.seek(tensor.begin)
        for begin in range(tensor.begin, tensor.end, CHUNK_BYTES):
            yield np.frombuffer(file.read(min(CHUNK_BYTES, tensor.end - begin)), np.uint16)


def table(results: dict[str, Timings]) -> list[str]:
    """Return the timings as lines of a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for method, timings in results.items():
        middle = {tool: median(run.seconds for run in runs) for tool, runs in timings.items()}
        for tool in [tool for tool in timings if tool != "first"]:
            cells = [
                method,
                tool,
                f"{middle[tool]:.2f}",
                f"{min(run.seconds for run in timings[tool]):.2f}",
                f"{middle[tool] / middle['floor']:.2f}" if "floor" in middle else "",
                f"{middle['mergekit'] / middle[tool]:.1f}" if "mergekit" in middle else "",
                f"{max(run.peak_bytes for run in timings[tool]) / 1e9:.2f} GB",
                f"{middle['first']:.1f} s" if tool == "cuvee" else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def conditions(models: Path, given: argparse.Namespace) -> list[str]:
    """Return on what the table was measured and how, as sentences."""
    checkpoint = read_headers(models / "a")
    weights = sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    installed = {found.name: found.version for found in distributions()}
    packages = ("cuvee", "numpy", "numba", "mergekit", "torch")
    compiled = "were compiled before" if given.compiled else "are compiled in it"
    notes = [
        f"Machine: {cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory / 1e9:.1f} GB of memory, Linux {platform.release()}; Python "
        f"{platform.python_version()}, "
        + ", ".join(f"{name} {installed.get(name, 'not installed')}" for name in packages),
        f"Checkpoints: {given.shapes}, {checkpoint.config['num_hidden_layers']} layers, "
        f"{weights:,} weights in bfloat16, {2 * weights / 1e9:.2f} GB each",
        f"Whole processes in turns, {given.repeat} of each; inputs were read just before; none of "
        "them waits for the disk",
        f"Compile time is not counted: 'first run' is cuvee's once before; its kernels {compiled} "
        "and are kept on disk for all later merges",
    ]
    if "mergekit" in given.tools and "mergekit" not in installed:
        notes.append("mergekit was left out: it is not installed")
    if 8 * weights > memory:
        notes.append("The files hardly fit into memory: not all reads came from the page cache")
    return notes


if __name__ == "__main__":
    main()
