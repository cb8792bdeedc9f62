"""How long merging takes and how much memory: cuvee, mergekit and the floor, side by side.

    python benchmarks/merge.py --shapes qwen2.5-1.5b --methods arcee_fusion,linear,ties

Makes random bfloat16 checkpoints in a real model's shapes (a; b and c are a plus small updates),
merges them with each method and prints a Markdown table. Everything that is timed is a whole
process, start-up included; tools take turns (A, B, C, A, B, C); inputs are in the page cache.
The floor reads the same inputs and writes one output: `cat INPUTS >/dev/null; cp A OUT`.
Not here: whether a merge is right (tests/merge); a result is only looked at for gross faults.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEIGHT_SIGMA, UPDATE_SIGMA = 0.02, 3e-4
CHUNK = 1 << 22
"""Elements that are made, or looked at, at a time."""
LOOKED_AT = "model.layers.0.mlp.down_proj.weight"
"""The tensor that is compared with the inputs."""
LEAST_COPIED = {"cuvee": 1.0, "mergekit": 0.9}
"""Share of arcee_fusion's weights that are one input's; mergekit rounds A + (B - A)."""
WEIGHTS = "model.safetensors"

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


SHAPES = {
    "qwen2.5-1.5b": Shapes(1536, 8960, 12, 2, 151936, tied=True, layers=28),
    "qwen2.5-32b-4layers": Shapes(5120, 27648, 40, 8, 152064, tied=False, layers=4),
    "tiny": Shapes(64, 160, 4, 2, 512, tied=True, layers=2),
}

PAIR = "models: [{model: A}, {model: B}]"
TWO_ON_BASE = (
    "base_model: A\nmodels:\n"
    "  - {{model: B, parameters: {{{each}}}}}\n"
    "  - {{model: C, parameters: {{{each}}}}}"
)
METHODS = {
    "arcee_fusion": f"base_model: A\n{PAIR}",
    "linear": f"{PAIR}\nparameters: {{weight: 0.5}}",
    "slerp": f"base_model: A\n{PAIR}\nparameters: {{t: 0.5}}",
    "ties": TWO_ON_BASE.format(each="weight: 0.5, density: 0.5"),
    "dare_linear": TWO_ON_BASE.format(each="weight: 0.5, density: 0.5"),
    "task_arithmetic": TWO_ON_BASE.format(each="weight: 0.5"),
}
"""Body of the config; A, B and C stand for the checkpoints."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """One whole process."""

    seconds: float
    peak_bytes: int


def tensors_of(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of a Qwen2 checkpoint, in the order of its file."""
    h, inner = shapes.hidden, shapes.intermediate
    kv = h // shapes.heads * shapes.key_value_heads
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shapes.vocabulary, h)}
    for layer in range(shapes.layers):
        of_layer: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (h,),
            "mlp.down_proj.weight": (h, inner),
            "mlp.gate_proj.weight": (inner, h),
            "mlp.up_proj.weight": (inner, h),
            "post_attention_layernorm.weight": (h,),
            "self_attn.k_proj.bias": (kv,),
            "self_attn.k_proj.weight": (kv, h),
            "self_attn.o_proj.weight": (h, h),
            "self_attn.q_proj.bias": (h,),
            "self_attn.q_proj.weight": (h, h),
            "self_attn.v_proj.bias": (kv,),
            "self_attn.v_proj.weight": (kv, h),
        }
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    found["model.norm.weight"] = (h,)
    return found if shapes.tied else found | {"lm_head.weight": (shapes.vocabulary, h)}


def bytes_of(shapes: Shapes) -> int:
    """Return the bytes of a checkpoint's weights."""
    return 2 * sum(prod(shape) for shape in tensors_of(shapes).values())


def make_checkpoint(folder: Path, shapes: Shapes, number: int) -> None:
    """Write checkpoint `number` (0: the base; others: the base plus updates) chunk by chunk."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
        "hidden_size": shapes.hidden, "intermediate_size": shapes.intermediate,
        "num_hidden_layers": shapes.layers, "num_attention_heads": shapes.heads,
        "num_key_value_heads": shapes.key_value_heads, "vocab_size": shapes.vocabulary,
        "tie_word_embeddings": shapes.tied, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "max_position_embeddings": 32768, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors_of(shapes).items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = folder / f"{WEIGHTS}.partial"
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor, shape in enumerate(tensors_of(shapes).values()):
            for begin in range(0, prod(shape), CHUNK):
                count = min(CHUNK, prod(shape) - begin)
                values = WEIGHT_SIGMA * normal(count, 0, tensor, begin)
                if number:
                    values += UPDATE_SIGMA * normal(count, number, tensor, begin)
                file.write(rounded(values).data)
    partial.rename(folder / WEIGHTS)


def normal(count: int, *seed: int) -> NDArray[np.float32]:
    """Return normal float32 numbers that the seed decides."""
    return np.random.default_rng(seed).standard_normal(count, dtype=np.float32)


def rounded(values: NDArray[np.float32]) -> Bits:
    """Return bfloat16, to nearest, as its bits."""
    words = values.view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


def places_in(folder: Path) -> dict[str, tuple[Path, int, int, str]]:
    """Return {tensor: (file, first byte, byte after the last, dtype)} of a checkpoint."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = (file, begin, end, entry["dtype"])
    return found


def chunks(file: Path, begin: int, end: int) -> Iterator[Bits]:
    """Yield the 16-bit words of a part of a file."""
    with file.open("rb") as opened:
        opened.seek(begin)
        for at in range(begin, end, 2 * CHUNK):
            yield np.frombuffer(opened.read(min(2 * CHUNK, end - at)), np.uint16)


def check(out: Path, inputs: Sequence[Path], tool: str, method: str) -> str:
    """Return what is grossly wrong with a merged checkpoint; empty if nothing is."""
    wanted, places = places_in(inputs[0]), places_in(out)
    if places.keys() != wanted.keys():
        return f"other tensors: {sorted(places.keys() ^ wanted.keys())[:3]}"
    if dtypes := {dtype for *_, dtype in places.values()} - {"BF16"}:
        return f"dtypes {sorted(dtypes)}"
    for name, (file, begin, end, _) in places.items():
        if end - begin != wanted[name][2] - wanted[name][1]:
            return f"{name}: another size"
        if any(bool(((part & 0x7F80) == 0x7F80).any()) for part in chunks(file, begin, end)):
            return f"{name}: NaN or infinite values"
    sources = [chunks(*places_in(folder)[LOOKED_AT][:3]) for folder in (out, *inputs[:2])]
    merged, a, b = (np.concatenate(list(parts)) for parts in sources)
    if np.array_equal(merged, a) or np.array_equal(merged, b):
        return f"{LOOKED_AT} is that of one input"
    copied = float(np.mean((merged == a) | (merged == b)))
    if method == "arcee_fusion" and copied < LEAST_COPIED[tool]:
        return f"{LOOKED_AT}: {copied:.2%} of the weights are one input's"
    return ""


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own.

    A child's peak memory begins at what its parent holds, so the parent must stay small.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def timed(command: Sequence[str], *, log: Path, environment: dict[str, str]) -> Timing:
    """Run a command; return its wall seconds and the peak memory of it or any child."""
    os.sync()  # what was written before is not this command's burden
    with log.open("ab") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text(errors="replace").splitlines()[-15:]
        raise SystemExit("\n".join([f"failed ({process.returncode}): {' '.join(command)}", *lines]))
    return Timing(seconds, usage.ru_maxrss * 1024)


def commands_for(config: Path, out: Path, inputs: Sequence[Path]) -> dict[str, list[str]]:
    """Return {tool: command}; mergekit only where it is installed."""
    files = " ".join(str(folder / WEIGHTS) for folder in inputs)
    floor = f"cat {files} >/dev/null; mkdir {out}; cp {inputs[0] / WEIGHTS} {out}"
    found = {"cuvee": [sys.executable, "-m", "cuvee.cli", "merge", str(config), str(out)]}
    beside = Path(sys.executable).with_name("mergekit-yaml")
    if program := str(beside) if beside.exists() else shutil.which("mergekit-yaml"):
        found["mergekit"] = [program, str(config), str(out), "--random-seed", "0"]
    return found | {"floor": ["sh", "-c", floor]}


def run_method(method: str, models: Path, repeat: int, *, compiled: bool) -> dict[str, Any]:
    """Merge with every tool in turns; return the timings, and cuvee's first run apart."""
    body = METHODS[method]
    inputs = [models / name for name in ("a", "b", "c")[: 3 if "model: C" in body else 2]]
    with tempfile.TemporaryDirectory(prefix=f"{method}-", dir=models) as place:
        config, out, log = (Path(place) / name for name in ("config.yml", "out", "log.txt"))
        for letter, folder in zip("ABC", inputs, strict=False):
            body = body.replace(f"model: {letter}", f"model: {json.dumps(str(folder))}")
        dtypes = "dtype: bfloat16\nout_dtype: bfloat16\n"
        config.write_text(f"merge_method: {method}\n{body}\n{dtypes}")
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        environment |= {} if compiled else {"NUMBA_CACHE_DIR": str(Path(place) / "numba")}
        commands = commands_for(config, out, inputs)
        subprocess.run(["cat", *(folder / WEIGHTS for folder in inputs)], stdout=subprocess.DEVNULL, check=True)
        timings: dict[str, list[Timing]] = {tool: [] for tool in ("first", *commands)}
        for tool in ["first", *list(commands) * repeat]:
            name = "cuvee" if tool == "first" else tool
            say(f"{method}: {name}{' (first run)' if tool == 'first' else ''}")
            timings[tool].append(timed(commands[name], log=log, environment=environment))
            fault = "" if name == "floor" else apart(check, out, inputs, name, method)
            if fault:
                raise SystemExit(f"{name}, {method}: the result is wrong: {fault}")
            shutil.rmtree(out)
    return {
        tool: [dataclasses.asdict(timing) for timing in found] for tool, found in timings.items()
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the timings as a Markdown table."""
    lines = [
        "| method | tool | median s | min s | × floor | mergekit's time ÷ this | peak RSS, GB | "
        "first run, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, timings in results.items():
        seconds = {tool: [run["seconds"] for run in runs] for tool, runs in timings.items()}
        floor, theirs = median(seconds["floor"]), seconds.get("mergekit")
        for tool in [tool for tool in timings if tool != "first"]:
            middle = median(seconds[tool])
            peak = max(run["peak_bytes"] for run in timings[tool])
            cells = [
                method, tool, f"{middle:.2f}", f"{min(seconds[tool]):.2f}", f"{middle / floor:.2f}",
                f"{median(theirs) / middle:.1f}" if theirs else "", f"{peak / 1e9:.2f}",
                f"{seconds['first'][0]:.2f}" if tool == "cuvee" else "",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def conditions(shapes: Shapes, *, repeat: int, compiled: bool) -> str:
    """Return what the table was measured on and how, as Markdown."""
    cpu = next((line for line in lines_of("/proc/cpuinfo") if line.startswith("model name")), "")
    packages = ("cuvee", "numpy", "numba", "mergekit", "torch")
    versions = [f"{package} {found}" for package in packages if (found := version_of(package))]
    size = bytes_of(shapes)
    first = (
        "the kernels were compiled before"
        if compiled
        else "its kernels are compiled in it; later runs of any merge find them on disk"
    )
    notes = [
        f"Machine: {cpu.partition(':')[2].strip() or platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} cores, {memory('MemTotal') / 1e9:.1f} GB of memory, "
        f"Linux {platform.release()}; Python {platform.python_version()}, {', '.join(versions)}.",
        f"Checkpoints: bfloat16, {shapes.layers} layers, {size / 2e9:.3f} billion weights, "
        f"{size / 1e9:.2f} GB each; updates of sigma {UPDATE_SIGMA:g}.",
        f"Whole processes in turns, {repeat} each, inputs read beforehand. cuvee syncs its output "
        "to the disk within its time; mergekit and the floor do not.",
        f"Compile time is not counted. First run: cuvee's seconds once before; {first}.",
    ]
    if version_of("mergekit") is None:
        notes.append("mergekit is not installed here: left out.")
    if 4 * size > memory("MemTotal"):
        notes.append("Memory is small for these files: not all reads came from the page cache.")
    return "\n".join(f"- {note}" for note in notes)


def version_of(package: str) -> str | None:
    """Return a package's version, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def memory(field: str) -> int:
    """Return a field of /proc/meminfo in bytes."""
    found = next(line for line in lines_of("/proc/meminfo") if line.startswith(f"{field}:"))
    return int(found.split()[1]) * 1024


def lines_of(file: str) -> list[str]:
    """Return the lines of a text file."""
    return Path(file).read_text().splitlines()


def say(text: str) -> None:
    """Tell how far the benchmark is, beside its output."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """Return the command line's arguments, checked."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--shapes", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--layers", type=int, help="fewer or more layers than the model has")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of each tool")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="checkpoints")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run's numbers")
    parser.add_argument("--compiled", action="store_true", help="use kernels compiled before")
    parser.add_argument("--without-mergekit", action="store_true")
    given = parser.parse_args()
    given.methods = given.methods.split(",")
    if unknown := sorted(set(given.methods) - set(METHODS)):
        parser.error(f"--methods: {', '.join(unknown)}; known are {', '.join(METHODS)}")
    if given.repeat < 1 or (given.layers is not None and given.layers < 1):
        parser.error("--repeat and --layers: 1 at least")
    return given


def main() -> None:
    """Make what is missing, run all methods, print the table."""
    given = arguments()
    shapes = SHAPES[given.shapes]
    if given.layers is not None:
        shapes = dataclasses.replace(shapes, layers=given.layers)
    models = given.folder.absolute() / f"{given.shapes}-{shapes.layers}"
    models.mkdir(parents=True, exist_ok=True)
    wanted = "abc" if any("model: C" in METHODS[method] for method in given.methods) else "ab"
    missing = [name for name in wanted if not (models / name / WEIGHTS).exists()]
    needed, free = (len(missing) + 1) * bytes_of(shapes), shutil.disk_usage(models).free
    if needed > 0.95 * free:
        raise SystemExit(f"{models}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    for name in missing:
        say(f"making {models / name} ({bytes_of(shapes) / 1e9:.2f} GB)")
        apart(make_checkpoint, models / name, shapes, "abc".index(name))
    results = {}
    for method in given.methods:
        results[method] = run_method(method, models, given.repeat, compiled=given.compiled)
    print(table(results))
    print()
    print(notes := conditions(shapes, repeat=given.repeat, compiled=given.compiled))
    if given.json:
        data = {"shapes": given.shapes, "layers": shapes.layers, "notes": notes, "runs": results}
        given.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
