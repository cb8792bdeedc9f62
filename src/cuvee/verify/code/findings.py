"""What reports of a program, or its end, say of it: the words of a verdict.

Report lines and `Ended` in, a `Finding` out. A report may be one that the program made up:
it can only make itself `wrong`, or say values that it could have returned anyway. Not here:
what the sandbox is told to run (`calls`, `programs`, `apart`).
"""

import ast
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cuvee.recipe import Verify
from cuvee.records import VerdictName
from cuvee.verify import sandbox
from cuvee.verify.code.syntax import parsed
from cuvee.verify.sandbox import Ended, Limits

OUTPUT_BYTES = 8 * 2**20
"""Of stdout, stderr and reports together; each case after the first has 1 MiB more."""
_MOST_MORE_OUTPUT = 120
_SHOWN = 200

THIRD_PARTY = frozenset(
    """ac_library atcoder bitarray cachetools cupy cvxpy cython gmpy2 jax joblib keras llvmlite
    lxml matplotlib mpmath more_itertools nltk networkx numba numpy pandas pulp pyarrow pydantic
    pytest regex requests scipy seaborn shapely sklearn sortedcontainers sympy tensorflow torch
    tqdm transformers""".split()
)
"""Packages beyond the standard library that programs for a judge do import.

There are none in the sandbox, so such a program cannot be judged; a name that is none of
these fails as at any judge."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The part of a judgement that running the program gives."""

    verdict: VerdictName
    reason: str
    detail: str | None = None
    forgeable: bool = False
    """The program ran where the verdict was made."""


PASSED = Finding("correct", "passed")


@dataclasses.dataclass(frozen=True)
class Room:
    """What a program may use, and in which kind of sandbox."""

    limits: Verify
    sandbox_kind: str


def run(
    job: Mapping[str, Any],
    room: Room,
    take: Callable[[bytes], bool],
    *,
    stdin: str = "",
    cases: int = 1,
    peer: int | None = None,
) -> Ended:
    """Run a job of `cuvee.verify.code.harness`; `take` gets its reports, one for each case."""
    output = OUTPUT_BYTES + min(cases - 1, _MOST_MORE_OUTPUT) * 2**20
    limits = room.limits
    return sandbox.run(
        job,
        stdin=stdin.encode("utf-8", "surrogatepass"),
        kind=room.sandbox_kind,
        limits=Limits(limits.code_seconds, limits.memory_mb, cases - 1, output),
        on_report=take,
        peer=peer,
    )


def read(line: bytes) -> dict[str, Any]:
    """Read a report; one the program made up may be anything."""
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return {"event": "unreadable"}
    return report if isinstance(report, dict) else {"event": "unreadable"}


def collector(reports: list[dict[str, Any]]) -> Callable[[bytes], bool]:
    """Return what collects the first report after `ready`, and ends the program with it."""
    heard = 0

    def take(line: bytes) -> bool:
        nonlocal heard
        heard += 1
        if heard > 1:
            reports.append(read(line))
        return not reports

    return take


def failure(report: Mapping[str, Any], case: str, program: str) -> Finding:
    """Return what a report that is no result says of the program."""
    text = str(report.get("text", "a report that is none"))[:500]
    detail = f"{case}: {text}"
    phase, error = report.get("phase"), report.get("type")
    if phase == "syntax":
        return Finding("wrong", "syntax_error", text)
    if phase == "missing":
        return Finding("wrong", "missing_function", text)
    if error == "MemoryError":
        return Finding("wrong", "memory_limit", detail)
    if error == "ModuleNotFoundError" and _lacks(str(report.get("module")), program):
        return Finding("not_checked", "missing_module", text)
    if phase == "result":
        return Finding("wrong", "wrong_output", f"{case}: returned no plain value: {text}")
    if phase == "assert" and error == "AssertionError":
        return Finding("wrong", "wrong_output", detail)
    return Finding("wrong", "runtime_error", detail)


def _lacks(module: str, program: str) -> bool:
    """Say whether a well-known package is missing that the program does import."""
    package = module.partition(".")[0]
    if package not in THIRD_PARTY:
        return False
    try:
        nodes = list(ast.walk(parsed(program)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    imported = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    imported += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return package in {name.partition(".")[0] for name in imported}


def ended_early(ended: Ended, case: str) -> Finding:
    """Return what the end of a program says that ended before it had answered."""
    if ended.how == "not_started":
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.exit_code}"]
        return Finding("not_checked", "sandbox_failed", lines[-1])
    if ended.how in ("time_limit", "output_limit"):
        return Finding("wrong", ended.how, case)
    lines = ended.stderr.strip().splitlines()
    said = f", {lines[-1][:_SHOWN]}" if lines else ""
    return Finding(
        "wrong", "runtime_error", f"{case}: ended with exit code {ended.exit_code}{said}"
    )


def case_name(index: int, inputs: Sequence[Any]) -> str:
    """Return which case it is, for people."""
    return f"case {index + 1} of {len(inputs)}, input {short(inputs[index])}"


def short(value: Any) -> str:
    """Return a value's text, shortened."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
