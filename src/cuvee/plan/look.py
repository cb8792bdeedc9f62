"""A run folder that is looked at for a recipe: what of it can be used, and why the rest is not.

The folder's recipe and manifest in; which domains and teachers are asked alike, sound entries,
rows whose counts are numbers, and notes out. Not here: what is measured (`cuvee.plan.reading`,
`cuvee.plan.outcomes`).
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

from cuvee.errors import DataError
from cuvee.lineage.text import one_line
from cuvee.plan.measured import Answers
from cuvee.recipe import Domain, Recipe, Teacher
from cuvee.records import iter_values
from cuvee.runfolder import Run, read_manifest

COUNTED = ("prompt_tokens", "completion_tokens", "seconds", "usd")
NUMBERS = {*COUNTED, "tokens"}
COLUMNS = ("id", "problem_id", "model", *COUNTED)
NOT_ASKED_ALIKE = {"samples", "concurrency", "domains", "usd_per_mtok", "retries", "timeout",
                   "deadline", "stream", "key_env", "terms"}  # fmt: skip
"""Keys of a teacher that change neither its answers nor how long one of them takes."""
LONGEST_REASON = 200

Found = TypeVar("Found")


@dataclasses.dataclass(frozen=True)
class Look:
    """A run folder that is looked at for a recipe."""

    run: Run
    recipe: Recipe
    domains: frozenset[str]
    """Those that both recipes ask alike; `teachers` likewise."""
    teachers: frozenset[str]
    manifest: Mapping[str, Any]
    notes: list[str]

    def attempt(self, what: str, read: Callable[[], Found]) -> Found | None:
        """Return what `read` does, or None with a note where its files cannot be read."""
        try:
            return read()
        except (DataError, OSError) as error:
            self.notes.append(reason(f"{what}: not measured", error))
            return None


def reason(what: str, error: Exception) -> str:
    """Return a note of one line; an error may quote what a broken file holds."""
    return f"{what}: {shorten(one_line(str(error)), LONGEST_REASON, placeholder=' ...')}"


def manifest_of(folder: Path, notes: list[str]) -> dict[str, Any]:
    """Return the entries of a manifest that can be used."""
    try:
        entries = read_manifest(folder)
    except (DataError, UnicodeDecodeError) as error:
        notes.append(reason("what was done, and how long it took, is unknown", error))
        return {}
    sound = {key: entry for key, entry in entries.items() if _is_entry(entry)}
    if broken := sorted(set(entries) - set(sound)):
        notes.append(
            f"MANIFEST.json: {len(broken)} entries are none of this version, and count as not "
            f"done; the first: {one_line(broken[0])}"
        )
    return sound


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("counts"), dict):
        return False
    counts = entry["counts"]
    numbers = [entry.get("seconds"), counts.get("failed", 0), counts.get("refused", 0)]
    return all(is_number(number) for number in numbers)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number of 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def alike(old: Recipe, new: Recipe, notes: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the domains and teachers that are asked alike by both recipes."""
    domains = set()
    for name, domain in new.domains.items():
        other = old.domains.get(name)
        if other is not None and _asked(domain) == _asked(other):
            domains.add(name)
        elif other is not None:
            notes.append(f"{name}: not measured: sources, prompt, verifier or select differ")
    before = {teacher.name: teacher for teacher in old.teachers}
    teachers = set()
    for teacher in new.teachers:
        if teacher.name in before and _asking(teacher) == _asking(before[teacher.name]):
            teachers.add(teacher.name)
        elif teacher.name in before:
            notes.append(f"{teacher.name}: not measured: the model or its sampling differs")
    return frozenset(domains), frozenset(teachers)


def _asked(domain: Domain) -> dict[str, Any]:
    """Return what decides a domain's numbers; how many problems and examples does not."""
    # Grading and refining come after, and are compared where they are read.
    found: dict[str, Any] = domain.model_dump(mode="json", exclude={"rubric", "refine"})
    del found["select"]["target"]
    for source in found["problems"]:
        del source["count"]
    return found


def _asking(teacher: Teacher) -> dict[str, Any]:
    return teacher.model_dump(mode="json", exclude=NOT_ASKED_ALIKE)


def numbered(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield rows whose counts are numbers or None. Raises DataError for others."""
    for row in iter_values(file, columns):
        for name in NUMBERS & set(columns):
            if row[name] is not None and not is_number(row[name]):
                raise DataError(f"{file}: {name} is {row[name]!r}, no number of 0 or more")
        yield row


def answers_in(
    file: Path, *, wall: float, in_flight: int, problem_of: Mapping[str, str] | None = None,
    problems: Iterable[str] = (),
) -> Answers:  # fmt: skip
    """Return what a file of traces says, by problem.

    `problem_of` a trace's `problem_id`, where that is another trace; of `problems` those that
    were not asked about count as well.
    """
    by_problem: dict[str, list[dict[str, Any]]] = {problem: [] for problem in problems}
    requests, usd = 0, None
    for row in numbered(file, COLUMNS):
        requests += 1
        about = row["problem_id"]
        problem = about if problem_of is None else problem_of.get(about, about)
        by_problem.setdefault(problem, []).append(row)
        if row["usd"] is not None:
            usd = (usd or 0.0) + row["usd"]
    groups = list(by_problem.values())
    in_requests = sum(row["seconds"] or 0.0 for group in groups for row in group)
    return Answers(
        requests=requests,
        prompt=_means(groups, "prompt_tokens"),
        completion=_means(groups, "completion_tokens"),
        seconds=_means(groups, "seconds"),
        wall=wall,
        around=max(0.0, wall - in_requests / in_flight),
        usd=usd,
        each=tuple(float(len(group)) for group in groups),
    )


def _means(groups: Sequence[Sequence[Mapping[str, Any]]], column: str) -> tuple[float, ...]:
    """Return the mean of each group's values, of those that have any."""
    found = ([row[column] for row in rows if row[column] is not None] for rows in groups)
    return tuple(sum(values) / len(values) for values in found if values)
