"""llama.cpp's own quantiser in a process of its own: Q6_K, Q5_K_M, Q4_K_M and the other K-quants.

`python -m cuvee.models.gguf_quantize SOURCE OUT TYPE` makes OUT of an unquantised GGUF file;
`quantize` runs that and reads back what it stored. It comes with the extra `quantize`
(cyllama). Its own process keeps the library's stderr, where alone its errors appear, and
survives its crashes. No importance matrix is used. Not here: the source file, and OUT's
final name (`cuvee.models.gguf_write`).
"""

import collections
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cuvee.errors import CuveeError, RecipeError
from cuvee.models.process import TAIL_LINES, guarded
from cuvee.progress import bar, log

FILE_TYPES = {
    "Q2_K": 10,
    "Q3_K_M": 12,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
    "Q6_K": 18,
}
"""llama.cpp's `llama_ftype`, which is also `general.file_type` in the file."""
BLOCK = 256
"""Numbers of one block of a K-quant: rows must be a multiple of it."""
_DONE = re.compile(r"\[ *\d+/ *\d+\]")
"""How the quantiser's line of each tensor begins."""


def require_quantizer(quantization: str) -> None:
    """Raise RecipeError where the package that has the quantiser is not installed."""
    if importlib.util.find_spec("cyllama") is None:
        raise RecipeError(
            f"{quantization} is made by llama.cpp's own quantiser, which is not installed: run "
            "`pip install 'cuvee[quantize]'`, or export F32, F16, BF16 or Q8_0"
        )


def quantize(
    source: Path, out: Path, *, quantization: str, tensors: int, files: Sequence[int] = ()
) -> None:
    """Make `out` of the unquantised file `source`, which has so many `tensors`.

    `files` are open files that the process is to inherit (`source` may be one). Same source,
    same bytes, however many threads. Raises RecipeError as `require_quantizer`, CuveeError
    with the end of what the quantiser said where it fails or dies (a full disk, too).
    """
    require_quantizer(quantization)
    arguments = [str(source), str(out), quantization]
    command = guarded([sys.executable, "-m", "cuvee.models.gguf_quantize", *arguments])
    said: list[str] = []
    with (
        bar(f"{quantization} quantise", total=tensors, unit="tensors") as tick,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=files,
        ) as process,
    ):
        for line in process.stdout or ():
            said.append(_printable(line))
            tick(1 if _DONE.match(said[-1]) else 0)
    log.info("llama.cpp's quantiser said:\n%s", "\n".join(said))
    if process.returncode != 0:
        raise CuveeError(_failure(out, process.returncode, said))


def _printable(line: bytes) -> str:
    """Return a line without control characters: it quotes the model's metadata."""
    text = line.decode("utf-8", "replace").rstrip()
    return "".join(c if c.isprintable() else "�" for c in text)


def _failure(out: Path, code: int, said: Sequence[str]) -> str:
    free = shutil.disk_usage(out.parent).free
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    end = "\n".join(f"  {line}" for line in said[-TAIL_LINES:]) or "  (nothing)"
    return (
        f"llama.cpp's quantiser {ended}; the disk of {out.parent} has {free / 1e6:.0f} MB free; "
        f"the end of what it said:\n{end}"
    )


def fallbacks(quantization: str, tensors: Mapping[str, tuple[Sequence[int], str]]) -> str:
    """Return in words what llama.cpp stored in other types than the K-quants; "" where nothing.

    `tensors` is, by name, each tensor's sizes (the row's length first) and type as the file has
    them. Vectors are float32 in every file and do not count.
    """
    other = [
        (sizes[0], kind)
        for sizes, kind in tensors.values()
        if len(sizes) > 1 and not kind.endswith("_K")
    ]
    if not other:
        return ""
    kinds = collections.Counter(kind for _, kind in other)
    rows = ", ".join(str(n) for n in sorted({length for length, _ in other}))
    stored = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
    return (
        f"{len(other)} of {len(tensors)} tensors fell back from {quantization} to {stored}: "
        f"their rows of {rows} numbers are no multiple of {BLOCK}"
    )


def main(arguments: list[str]) -> int:
    """Quantise; return 1, with the reason on stderr, where that fails."""
    from cyllama.llama import llama_cpp  # here alone: the parent must not load the library

    source, out, quantization = arguments
    parameters = llama_cpp.LlamaModelQuantizeParams()
    parameters.ftype = FILE_TYPES[quantization]
    parameters.nthread = len(os.sched_getaffinity(0))
    try:
        llama_cpp.model_quantize(source, out, parameters)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
