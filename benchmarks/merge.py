"""How long merging takes and how much memory: cuvee, mergekit and the floor, side by side.

    python benchmarks/merge.py --shapes qwen2.5-1.5b --methods arcee_fusion,linear,ties

Makes random bfloat16 checkpoints in a real model's shapes (b and c are a plus small updates),
merges them with each method and prints a Markdown table. What is timed is a whole process,
start-up included; tools take turns (A, B, C, A, B, C); inputs are in the page cache.
The floor reads the same inputs and writes one output: `cat INPUTS >/dev/null; cp A OUT`.
Not here: whether a merge is right (tests/merge); results are looked at for gross faults only.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distributions
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvee.merge.headers import TensorHeader, read_headers

WEIGHT_SIGMA, UPDATE_SIGMA = 0.02, 3e-4
CHUNK = 1 << 22
"""Elements that are made, or looked at, at a time."""
LOOKED_AT = "model.layers.0.mlp.down_proj.weight"
"""The tensor that is compared with the inputs."""
WEIGHTS = "model.safetensors"
TOOLS = ("cuvee", "mergekit", "floor")
Bits = NDArray[np.uint16]


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The sizes of a Qwen2 model."""

    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool
    layers: int

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return {name: shape}, in the order of the file."""
        h, inner = self.hidden, self.intermediate
        kv = h // self.heads * self.key_value_heads
        of_layer = {
            "input_layernorm.weight": (h,), "mlp.down_proj.weight": (h, inner),
            "mlp.gate_proj.weight": (inner, h), "mlp.up_proj.weight": (inner, h),
            "post_attention_layernorm.weight": (h,), "self_attn.k_proj.bias": (kv,),
            "self_attn.k_proj.weight": (kv, h), "self_attn.o_proj.weight": (h, h),
            "self_attn.q_proj.bias": (h,), "self_attn.q_proj.weight": (h, h),
            "self_attn.v_proj.bias": (kv,), "self_attn.v_proj.weight": (kv, h),
        }  # fmt: skip
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, h)}
        for layer in range(self.layers):
            found |= {f"model.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
        found["model.norm.weight"] = (h,)
        return found if self.tied else found | {"lm_head.weight": (self.vocabulary, h)}

    def bytes(self) -> int:
        """Return the bytes of a checkpoint's weights."""
        return 2 * sum(prod(shape) for shape in self.tensors().values())


SHAPES = {
    "qwen2.5-1.5b": Shapes(1536, 8960, 12, 2, 151936, tied=True, layers=28),
    "qwen2.5-32b-4layers": Shapes(5120, 27648, 40, 8, 152064, tied=False, layers=4),
    "tiny": Shapes(64, 160, 4, 2, 512, tied=True, layers=2),
}

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


def make_checkpoint(folder: Path, shapes: Shapes, number: int) -> None:
    """Write checkpoint `number` (0: a; others: a plus updates of their own), chunk by chunk."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
        "hidden_size": shapes.hidden, "intermediate_size": shapes.intermediate,
        "num_hidden_layers": shapes.layers, "num_attention_heads": shapes.heads,
        "num_key_value_heads": shapes.key_value_heads, "vocab_size": shapes.vocabulary,
        "tie_word_embeddings": shapes.tied, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.tensors().items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = folder / f"{WEIGHTS}.partial"
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor, shape in enumerate(shapes.tensors().values()):
            for begin in range(0, prod(shape), CHUNK):
                count = min(CHUNK, prod(shape) - begin)
                values = WEIGHT_SIGMA * normal(count, 0, tensor, begin)
                if number:
                    values += UPDATE_SIGMA * normal(count, number, tensor, begin)
                words = values.view(np.uint32)
                file.write(((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16).data)
    partial.rename(folder / WEIGHTS)


def normal(count: int, *seed: int) -> NDArray[np.float32]:
    """Return normal numbers that the seed decides."""
    return np.random.default_rng(seed).standard_normal(count, dtype=np.float32)


def chunks(tensor: TensorHeader) -> Iterator[Bits]:
    """Yield a tensor's 16-bit words."""
    with tensor.file.open("rb") as file:
        file.seek(tensor.begin)
        for begin in range(tensor.begin, tensor.end, 2 * CHUNK):
            yield np.frombuffer(file.read(min(2 * CHUNK, tensor.end - begin)), np.uint16)


def fault_in(out: Path, inputs: Sequence[Path], tool: str, method: str) -> str:
    """Return what is grossly wrong with a merged checkpoint; empty if nothing is."""
    wanted, found = read_headers(inputs[0]).tensors, read_headers(out).tensors
    if found.keys() != wanted.keys():
        return f"other tensors: {sorted(found.keys() ^ wanted.keys())[:3]}"
    for name, tensor in found.items():
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, "BF16"):
            return f"{name}: {tensor.dtype} {tensor.shape}"
        if any(bool(((part & 0x7F80) == 0x7F80).any()) for part in chunks(tensor)):
            return f"{name}: NaN or infinite values"
    looked_at = [read_headers(folder).tensors[LOOKED_AT] for folder in (out, *inputs[:2])]
    merged, a, b = (np.concatenate(list(chunks(tensor))) for tensor in looked_at)
    copied = float(np.mean((merged == a) | (merged == b)))
    least = {"cuvee": 1.0, "mergekit": 0.9}[tool]  # mergekit rounds A + (B - A)
    if np.array_equal(merged, a) or np.array_equal(merged, b):
        return f"{LOOKED_AT} is that of one input"
    if method == "arcee_fusion" and copied < least:
        return f"{LOOKED_AT}: only {copied:.2%} of the weights are one input's"
    return ""


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own.

    A child's peak memory begins at what its parent holds, so the parent must stay small.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


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


def commands_for(config: Path, out: Path, inputs: Sequence[Path]) -> dict[str, list[str]]:
    """Return {tool: command}; mergekit only where it is installed."""
    files = " ".join(f"'{folder / WEIGHTS}'" for folder in inputs)
    floor = f"cat {files} >/dev/null; mkdir '{out}'; cp '{inputs[0] / WEIGHTS}' '{out}'"
    found = {"cuvee": [sys.executable, "-m", "cuvee.cli", "merge", str(config), str(out)]}
    beside = Path(sys.executable).with_name("mergekit-yaml")
    if program := str(beside) if beside.exists() else shutil.which("mergekit-yaml"):
        found["mergekit"] = [program, str(config), str(out), "--random-seed", "0"]
    return found | {"floor": ["sh", "-c", floor]}


def run_method(method: str, models: Path, given: argparse.Namespace) -> dict[str, list[Timing]]:
    """Merge with every tool in turns; return the timings of each, and of cuvee's `first` run."""
    body = METHODS[method]
    inputs = [models / name for name in ("abc" if "model: C" in body else "ab")]
    with tempfile.TemporaryDirectory(prefix=f"{method}-", dir=models) as place:
        config, out, log = (Path(place) / name for name in ("config.yml", "out", "log.txt"))
        for folder in inputs:
            body = body.replace(
                f"model: {folder.name.upper()}", f"model: {json.dumps(str(folder))}"
            )
        config.write_text(f"merge_method: {method}\n{body}\ndtype: bfloat16\nout_dtype: bfloat16\n")
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        if not given.compiled:
            environment["NUMBA_CACHE_DIR"] = str(Path(place) / "numba")
        commands = commands_for(config, out, inputs)
        tools = [tool for tool in commands if tool in given.tools]
        files = [folder / WEIGHTS for folder in inputs]
        subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
        timings: dict[str, list[Timing]] = {"first": []} | {tool: [] for tool in tools}
        for turn in ["first", *tools * given.repeat]:
            tool = "cuvee" if turn == "first" else turn
            timings[turn].append(timed(commands[tool], log=log, environment=environment))
            say(f"{method}, {tool}: {timings[turn][-1].seconds:.2f} s ({turn})")
            if tool != "floor" and (fault := apart(fault_in, out, inputs, tool, method)):
                raise SystemExit(f"{tool}, {method}: the result is wrong: {fault}")
            shutil.rmtree(out)
    return timings


def table(results: dict[str, dict[str, list[Timing]]]) -> str:
    """Return the timings as a Markdown table."""
    lines = [
        "| method | tool | median s | min s | × floor | mergekit ÷ this | peak RSS | first run |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for method, timings in results.items():
        middle = {tool: median(run.seconds for run in runs) for tool, runs in timings.items()}
        for tool in [tool for tool in timings if tool != "first"]:
            least = min(run.seconds for run in timings[tool])
            peak = max(run.peak_bytes for run in timings[tool])
            ratios = [
                f"{middle[tool] / middle['floor']:.2f}" if "floor" in middle else "",
                f"{middle['mergekit'] / middle[tool]:.1f}" if "mergekit" in middle else "",
            ]
            first = f"{middle['first']:.1f} s" if tool == "cuvee" else ""
            cells = [method, tool, f"{middle[tool]:.2f}", f"{least:.2f}", *ratios]
            lines.append(f"| {' | '.join([*cells, f'{peak / 1e9:.2f} GB', first])} |")
    return "\n".join(lines)


def conditions(shapes: Shapes, given: argparse.Namespace) -> str:
    """Return on what the table was measured and how, as Markdown."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    installed = {found.name: found.version for found in distributions()}
    versions = [
        f"{name} {installed.get(name, 'not installed')}"
        for name in ("cuvee", "numpy", "numba", "mergekit", "torch")
    ]
    size, compiled = (
        shapes.bytes(),
        "were compiled before" if given.compiled else "are compiled in it",
    )
    notes = [
        f"Machine: {cpu[1] if cpu else platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory / 1e9:.1f} GB of memory, Linux {platform.release()}; "
        f"Python {platform.python_version()}, {', '.join(versions)}.",
        f"Checkpoints: bfloat16, {shapes.layers} layers, {size / 2e9:.3f} billion weights, "
        f"{size / 1e9:.2f} GB each; updates of sigma {UPDATE_SIGMA:g}.",
        f"Whole processes in turns, {given.repeat} of each; inputs were read just before. cuvee "
        "syncs its output to the disk within its time, mergekit and the floor do not.",
        "Compile time is not counted: one run of cuvee before, whose seconds are \"first run\"; "
        f"the kernels {compiled}, and stay on disk for every later merge.",
    ]  # fmt: skip
    if 4 * size > memory:
        notes.append("The files hardly fit into memory: not all reads came from the page cache.")
    return "\n".join(f"- {note}" for note in notes)


def say(text: str) -> None:
    """Tell how far the benchmark is, beside its output."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """Return the command line's arguments; stops the program where they are wrong."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--shapes", choices=SHAPES, default="qwen2.5-1.5b")
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
    if given.repeat < 1 or (given.layers or 1) < 1:
        parser.error("--repeat and --layers: at least 1")
    return given


def main() -> None:
    """Make the checkpoints that are missing, run all methods, print the table."""
    given = arguments()
    shapes = SHAPES[given.shapes]
    shapes = dataclasses.replace(shapes, layers=given.layers or shapes.layers)
    models = given.folder.absolute() / f"{given.shapes}-{shapes.layers}"
    models.mkdir(parents=True, exist_ok=True)
    wanted = "abc" if any("model: C" in METHODS[method] for method in given.methods) else "ab"
    missing = [name for name in wanted if not (models / name / WEIGHTS).exists()]
    needed, free = (len(missing) + 1) * shapes.bytes(), shutil.disk_usage(models).free
    if needed > 0.95 * free:
        raise SystemExit(f"{models}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    for name in missing:
        say(f"making {models / name}: {shapes.bytes() / 1e9:.2f} GB")
        apart(make_checkpoint, models / name, shapes, "abc".index(name))
    results = {method: run_method(method, models, given) for method in given.methods}
    notes = conditions(shapes, given)
    print(f"{table(results)}\n\n{notes}")
    if given.json:
        runs = {
            method: {tool: [dataclasses.asdict(run) for run in found] for tool, found in by.items()}
            for method, by in results.items()
        }
        given.json.write_text(json.dumps({"notes": notes, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
