"""Protocols of scores in words: what the numbers were taken with, and where they differ.

The JSON column `Score.protocol` in, small records and text out. Keys that a protocol does not
have are said to be unknown, so that scores of any version can be shown. It compares protocols,
never scores.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cuvee.evaluate.table import leaves
from cuvee.records import Score
from cuvee.release.wording import count

UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class ProtocolGroup:
    """The models of one benchmark whose scores were taken alike."""

    benchmark: str
    models: tuple[str, ...]
    text: str
    """The protocol as indented JSON."""
    differs: tuple[str, ...]
    """What differs from the benchmark's first protocol: `sampling.max_tokens: 512, not 256`."""


def protocol_groups(scores: Iterable[Score]) -> list[ProtocolGroup]:
    """Return the protocols of each benchmark with the models they hold for, in their order."""
    found: dict[str, dict[str, list[str]]] = {}
    for score in scores:
        found.setdefault(score.benchmark, {}).setdefault(score.protocol, []).append(score.model)
    groups = []
    for benchmark, protocols in found.items():
        first = flat(json.loads(next(iter(protocols))))
        for protocol, models in protocols.items():
            own = json.loads(protocol)
            text = json.dumps(own, indent=1, ensure_ascii=False)
            differs = _differences(flat(own), first)
            groups.append(ProtocolGroup(benchmark, tuple(models), text, differs))
    return groups


def flat(protocol: Mapping[str, Any]) -> dict[str, str]:
    """Return a protocol as key path -> value as JSON: `sampling.top_p` -> `0.95`."""
    return {path: json.dumps(value, ensure_ascii=False) for path, value in leaves(protocol)}


def conditions(protocol: str) -> str:
    """Return in a line how a score's answers were sampled and served."""
    own = flat(json.loads(protocol))

    def value(key: str) -> str:
        return own.get(key, UNKNOWN).strip('"')

    room = value("sampling.max_tokens")
    room = count(int(room)) if room.isdecimal() else room
    engine, form = value("serve.engine"), value("serve.quantization")
    served = engine if form in (UNKNOWN, "null") else f"{engine} as {form}"
    return (
        f"temperature {value('sampling.temperature')}, top_p {value('sampling.top_p')}, at most "
        f"{room} tokens, served by {served}"
    )


def conditions_of(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Return (benchmarks and models, conditions), each different line once."""
    found: dict[str, dict[str, list[str]]] = {}
    for score in scores:
        by_benchmark = found.setdefault(conditions(score.protocol), {})
        by_benchmark.setdefault(score.benchmark, []).append(score.model)
    every: dict[str, list[str]] = {}
    for score in scores:
        every.setdefault(score.benchmark, []).append(score.model)
    lines = []
    for line, by_benchmark in found.items():
        named = [
            name if models == every[name] else f"{name} ({', '.join(models)})"
            for name, models in by_benchmark.items()
        ]
        lines.append((", ".join(named), line))
    return lines


def samples_by_llama(scores: Iterable[Score]) -> bool:
    """Return whether a score is of answers that llama.cpp sampled, with defaults of its own."""
    own = (json.loads(score.protocol) for score in scores)
    return any(
        p.get("serve", {}).get("engine") == "llama.cpp"
        and p.get("sampling", {}).get("temperature") != 0
        for p in own
    )


def _differences(own: Mapping[str, str], first: Mapping[str, str]) -> tuple[str, ...]:
    """Return each key whose value is not the first's."""
    keys = dict.fromkeys([*first, *own])
    return tuple(
        f"{key}: {own.get(key, UNKNOWN)}, not {first.get(key, UNKNOWN)}"
        for key in keys
        if own.get(key) != first.get(key)
    )
