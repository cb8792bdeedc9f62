"""How long a GGUF export takes against copying the checkpoint's weights, in one run.

    python benchmarks/export.py runs/demo/06_merged --types F16,BF16,Q8_0

Each round copies the safetensors files (`cp`, and `sync` of the copy, as an export is synced)
and then writes each type once; a first round compiles and fills the page cache and does not
count. Timed is `write_gguf` alone, without Python's start and the import of torch; the
tokenizer, which takes the same time for any number of weights, is part of it. For a larger
model, make one with checkpoints.py and copy the tokenizer's files of another beside it. Not
here: whether a file is right (tests/models).
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from cuvee.models.files import weight_files
from cuvee.models.gguf_write import ALL_TYPES, write_gguf

COPY = "cp"


def main() -> None:
    """Measure and print a Markdown table."""
    given = arguments()
    files = weight_files(given.checkpoint)
    seconds: dict[str, list[float]] = {COPY: [], **{name: [] for name in given.types}}
    sizes = {COPY: sum(file.stat().st_size for file in files)}
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        out = Path(scratch) / "m.gguf"
        for _ in range(given.rounds + 1):
            seconds[COPY].append(timed(lambda: copy(files, Path(scratch) / "copy")))
            for name in given.types:
                seconds[name].append(timed(partial(export, given.checkpoint, out, name)))
                sizes[name] = out.stat().st_size
    print(f"{given.checkpoint}: {sizes[COPY] / 1e6:.0f} MB, median of {given.rounds} rounds\n")
    print("| | MB | s | x cp | MB/s of the checkpoint |")
    print("|---|---|---|---|---|")
    floor = median(seconds[COPY][1:])
    for name, taken in seconds.items():
        s = median(taken[1:])
        row = f"| {name} | {sizes[name] / 1e6:.0f} | {s:.2f} | {s / floor:.1f} |"
        print(f"{row} {sizes[COPY] / 1e6 / s:.0f} |")


def arguments() -> argparse.Namespace:
    """Return the command line's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--types", type=lambda text: text.split(","), default=["F16", "Q8_0"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Where to write. Default: the system's.")
    given = parser.parse_args()
    if unknown := set(given.types) - set(ALL_TYPES):
        parser.error(f"--types: there are {', '.join(ALL_TYPES)}, not {', '.join(unknown)}")
    return given


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def copy(files: list[Path], out: Path) -> None:
    """Copy files into a folder, and wait until the disk has them."""
    out.mkdir(exist_ok=True)
    subprocess.run(["cp", *files, out], check=True)
    subprocess.run(["sync", *(out / file.name for file in files)], check=True)


def export(checkpoint: Path, out: Path, name: str) -> None:
    """Write the file as `name`."""
    write_gguf(checkpoint, out, quantization=name)


if __name__ == "__main__":
    main()
