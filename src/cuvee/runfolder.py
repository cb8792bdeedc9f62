"""The run folder: numbered files anyone can open, a manifest, and the task as unit of resume.

A task reads files, writes files and depends on a part of the recipe. Its entry in
`MANIFEST.json` is written last: the hashes of its inputs, settings and outputs, its counts,
seconds and versions. A task whose entry still matches is skipped; that is all the resume
logic between stages. Not here: what the tasks are (`stage.py` in each room).
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cuvee import __version__
from cuvee.atomic import remove, write_text
from cuvee.errors import DataError
from cuvee.progress import log
from cuvee.recipe import Recipe
from cuvee.records import content_hash

STAGES = ("problems", "teach", "verify", "select", "train", "merge", "evaluate", "release")
FOLDERS = {
    "problems": "01_problems",
    "teach": "02_traces",
    "verify": "03_verdicts",
    "select": "04_examples",
    "train": "05_specialists",
    "merge": "06_merged",
    "evaluate": "07_scores",
    "release": "08_release",
}
ACCOUNT = re.compile("[0-9a-f]{16}")
_WRITING = threading.Lock()
VERSIONED = ("torch", "transformers", "trl", "math-verify", "gguf", "xllamacpp")


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of work that is done once."""

    stage: str
    name: str
    """Unique in its stage, e.g. `math/alice`."""
    inputs: tuple[Path, ...]
    """Files and folders it reads; folders count with all files in them."""
    outputs: tuple[Path, ...]
    """Files and folders it writes, each complete when it appears."""
    settings: Mapping[str, Any]
    """The part of the recipe it depends on, as JSON values."""
    work: Callable[[], Mapping[str, Any]]
    """Does it; returns counts for the manifest. Those of `is_incomplete` decide whether the
    next run does it again."""
    lane: str = ""
    """Tasks of one lane are done in order, and an error ends the lane alone."""
    apart: bool = False
    """Whether the lane has a thread of its own, beside the others; it starts no processes."""

    @property
    def key(self) -> str:
        """Return the task's name in the manifest, e.g. `teach/math/alice`."""
        return f"{self.stage}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Run:
    """An open run: its folder and its recipe."""

    path: Path
    recipe: Recipe
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Set when the run is to end at once: lanes with a thread of their own look at it."""

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage, e.g. `01_problems`."""
        return self.path / FOLDERS[stage]

    def problems(self, domain: str) -> Path:
        """Return the file of a domain's problems."""
        return self.folder("problems") / f"{domain}.parquet"

    def benchmark(self, name: str) -> Path:
        """Return the file of a benchmark's problems."""
        return self.folder("problems") / "benchmarks" / f"{name}.parquet"

    def sources(self, name: str) -> Path:
        """Return the record of what a domain's (or `benchmarks/NAME`'s) sources gave."""
        return self.folder("problems") / "sources" / f"{name}.json"

    def published(self, domain: str) -> Path:
        """Return the file of a domain's published traces: those of all its teachers."""
        return self.folder("problems") / "traces" / f"{domain}.parquet"

    def asked(self, domain: str, *, in_round: int) -> Path:
        """Return the file of the problems that are asked in a round (>= 1): in the first all."""
        if in_round == 1:
            return self.problems(domain)
        return self._of_round("teach", in_round) / "asked" / f"{domain}.parquet"

    def traces(self, domain: str, teacher: str, *, in_round: int = 1) -> Path:
        """Return the file of one teacher's traces in one domain, of one round (>= 1)."""
        return self._of_round("teach", in_round) / domain / f"{teacher}.parquet"

    def trace_files(self, domain: str, *, in_round: int | None = None) -> list[Path]:
        """Return the files of all traces in a domain, or of a round: by round, then teacher."""
        teachers = self.recipe.teachers_of(domain)
        return [
            self.traces(domain, teacher.name, in_round=number)
            for number in (self.rounds() if in_round is None else (in_round,))
            for teacher in teachers
            if number == 1 or not teacher.published
        ]

    def verdicts(self, domain: str, *, in_round: int = 1) -> Path:
        """Return the file of a domain's verdicts, of one round (>= 1)."""
        return self._of_round("verify", in_round) / f"{domain}.parquet"

    def verdict_files(self, domain: str) -> list[Path]:
        """Return the files of all verdicts in a domain, round by round."""
        return [self.verdicts(domain, in_round=number) for number in self.rounds()]

    def rounds(self) -> range:
        """Return the numbers of the rounds that there may be, from 1."""
        rounds = self.recipe.rounds
        return range(1, 2 if rounds is None else rounds.most + 1)

    def _of_round(self, stage: str, number: int) -> Path:
        return self.folder(stage) / f"round-{number}" if number > 1 else self.folder(stage)

    def examples(self, domain: str) -> Path:
        """Return the file of a domain's examples, or of the mixture's: those of all domains."""
        return self.folder("select") / f"{domain}.parquet"

    def dropped(self, stage: str, domain: str) -> Path:
        """Return the file of what a stage (`problems`, `select`) left out in a domain."""
        return self.folder(stage) / "dropped" / f"{domain}.parquet"

    def specialist(self, domain: str) -> Path:
        """Return the folder of a domain's specialist, or of the mixture: a checkpoint."""
        return self.folder("train") / domain

    def merged(self) -> Path:
        """Return the folder of the merged model."""
        return self.folder("merge")

    def score_traces(self, model: str, benchmark: str) -> Path:
        """Return the file of one model's answers to one benchmark."""
        return self.folder("evaluate") / "traces" / model / f"{benchmark}.parquet"

    def score_verdicts(self, model: str, benchmark: str) -> Path:
        """Return the file of the verdicts on those answers."""
        return self.folder("evaluate") / "verdicts" / model / f"{benchmark}.parquet"

    def score_protocol(self, model: str, benchmark: str) -> Path:
        """Return the JSON file of what those answers were taken with."""
        return self.folder("evaluate") / "protocols" / model / f"{benchmark}.json"

    def scores(self) -> Path:
        """Return the score table's file."""
        return self.folder("evaluate") / "scores.parquet"

    def comparisons(self) -> Path:
        """Return the file of paired differences between models."""
        return self.folder("evaluate") / "comparisons.parquet"

    def engines(self) -> Path:
        """Return the folder of engines' logs and pid files."""
        return self.path / "engines"

    def account(self) -> str:
        """Return the id that this run's costs are booked under: 16 hex digits.

        Drawn by chance at the first call and kept in `account.txt`: it goes with the folder,
        whatever that is called or copied to. Raises DataError where the file holds no such id.
        """
        file = self.path / "account.txt"
        if not file.exists():
            write_text(file, secrets.token_hex(8) + "\n")
        account = file.read_text(encoding="utf-8").strip()
        if not ACCOUNT.fullmatch(account):
            raise DataError(f"{file}: {account!r} is no account (16 hex digits); remove the file")
        return account


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest's entries by task key; empty where there is none yet.

    Raises DataError where the file cannot be read as what this version writes.
    """
    file = path / "MANIFEST.json"
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["tasks"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not a readable manifest ({error}); move it away") from error
    if not isinstance(entries, dict):
        raise DataError(f"{file}: `tasks` is not a mapping; move it away")
    return entries


def is_done(run: Run, task: Task, manifest: Mapping[str, Any]) -> bool:
    """Return whether the task's entry matches its inputs, settings and outputs as they are.

    What is incomplete is not done.
    """
    entry = manifest.get(task.key)
    if entry is None or entry["settings"] != content_hash(dict(task.settings)):
        return False
    if is_incomplete(entry):
        return False
    if any(not path.exists() for path in (*task.inputs, *task.outputs)):
        return False
    known = _known_hashes(manifest)
    return _hashes_of(entry["inputs"]) == _hashes_of(
        _stamped(run, task.inputs, known)
    ) and _hashes_of(entry["outputs"]) == _hashes_of(_stamped(run, task.outputs, known))


def is_incomplete(entry: Mapping[str, Any]) -> bool:
    """Return whether requests of a task failed that another try may get answered.

    Those count as `failed` and not also as `refused`; the next run asks them again.
    """
    counts = entry["counts"]
    return bool(counts.get("failed", 0) > counts.get("refused", 0))


def execute(run: Run, task: Task) -> Mapping[str, Any]:
    """Do a task and write its manifest entry; return its counts.

    Old outputs are removed first, so that a task that fails leaves nothing that looks done.
    Raises DataError where an input is missing, and whatever the work raises.
    """
    for path in task.inputs:
        if not path.exists() and not path.is_relative_to(run.path):
            raise DataError(f"{path}: no such file")
        if not path.exists():
            raise DataError(f"{path}: missing; `cuvee {_writer(run, path)}` writes it")
    inputs = _stamped(run, task.inputs, _known_hashes(read_manifest(run.path)))
    _note(run, task, None)
    for path in task.outputs:
        remove(path)
    begin = time.time()
    log.info("begin %s", task.key)
    counts = dict(task.work())
    entry = {
        "inputs": inputs,
        "settings": content_hash(dict(task.settings)),
        "outputs": _stamped(run, task.outputs, {}),
        "counts": counts,
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin)),
        "seconds": round(time.time() - begin, 3),
        "versions": _versions(),
    }
    _note(run, task, entry)
    log.info("done %s in %.1f s: %s", task.key, time.time() - begin, counts)
    return counts


def _note(run: Run, task: Task, entry: Mapping[str, Any] | None) -> None:
    """Write a task's entry into the manifest; None takes it out."""
    with _WRITING:  # tasks of several lanes are done at once
        entries = read_manifest(run.path)
        if entry is None and task.key not in entries:
            return
        entries.pop(task.key, None)
        if entry is not None:
            entries[task.key] = dict(entry)
        text = json.dumps({"cuvee": __version__, "tasks": entries}, indent=1, sort_keys=True)
        write_text(run.path / "MANIFEST.json", text + "\n")


def _writer(run: Run, path: Path) -> str:
    """Return the stage that writes a path of the run folder."""
    if path.is_relative_to(run.folder("teach")) and path.parts[-3].startswith("round-"):
        return "verify"  # which asks again, and checks, until the rounds are over
    for stage, folder in FOLDERS.items():
        if path.is_relative_to(run.path / folder):
            return stage
    return "run"


def _name(run: Run, path: Path) -> str:
    return str(path.relative_to(run.path)) if path.is_relative_to(run.path) else str(path)


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _stamp(path: Path) -> str:
    """Return path, and name, size and mtime of each file: what tells whether to hash again."""
    stats = [(str(p.relative_to(path)), p.stat()) for p in _files(path)]
    return content_hash(str(path.absolute()), [[n, s.st_size, s.st_mtime_ns] for n, s in stats])


def _known_hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return every hash the manifest knows by the stamp it was taken at."""
    entries = [e for entry in manifest.values() for e in (entry["inputs"], entry["outputs"])]
    return {file["stamp"]: file["sha256"] for files in entries for file in files.values()}


def _stamped(
    run: Run, paths: tuple[Path, ...], known: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return hash and stamp of each path; what has a known stamp is not read again."""
    found = {}
    for path in paths:
        stamp = _stamp(path)
        found[_name(run, path)] = {"sha256": known.get(stamp) or hash_path(path), "stamp": stamp}
    return found


def _hashes_of(files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {name: file["sha256"] for name, file in files.items()}


def hash_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's names and contents, as hex."""
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"cuvee": __version__, "python": platform.python_version()}
    for package in VERSIONED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
