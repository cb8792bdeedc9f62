"""Rows of any file to train on, as `Example`s: what `cuvee preflight FILE` reads.

In: a data file (`cuvee.problems.files`) whose rows have the columns of `Example` (`prompt` and
`answer`; `reasoning`, `id`, `problem_id` where they are there) or a column `messages`: one user
turn and one assistant turn. Out: a Parquet file of `Example` rows. A row that is neither is
refused with all others of its kind, and counted; none is left out.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cuvee.errors import DataError
from cuvee.problems.conversations import split_reply
from cuvee.problems.files import read_file
from cuvee.records import Example, content_hash, write_rows

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where an assistant's turn may have its reasoning, apart from its content."""


@dataclasses.dataclass(frozen=True)
class Refused:
    """Why a row is not one question and its reply."""

    reason: str


@dataclasses.dataclass
class _Refusals:
    """Rows of one reason, so far."""

    first: str
    count: int = 0


def write_examples(file: Path, out: Path, *, limit: int | None = None) -> int:
    """Write the rows of a data file (the first `limit`) as `Example` rows; return how many.

    Raises DataError for a row that is no example, and, once the file is read, for rows of
    `messages` that are not one user turn and its reply, with their count.
    """
    refused: dict[str, _Refusals] = {}
    written = write_rows(out, _examples(file, refused, limit), Example)
    if not refused:
        return written
    total = written + sum(found.count for found in refused.values())
    lines = [
        f"  {found.count:,} of {total:,} rows: {reason} (the first is {found.first})"
        for reason, found in refused.items()
    ]
    raise DataError(
        f"{file}: `messages` must be one user turn and one assistant turn; split these rows or "
        "take them out:\n" + "\n".join(lines)
    )


def _examples(file: Path, refused: dict[str, _Refusals], limit: int | None) -> Iterator[Example]:
    for number, (place, row) in enumerate(read_file(file), start=1):
        if limit is not None and number > limit:
            return
        texts = _texts(place, row)
        if isinstance(texts, Refused):
            refused.setdefault(texts.reason, _Refusals(place)).count += 1
            continue
        prompt, reasoning, answer = texts
        yield Example(
            id=str(row.get("id") if row.get("id") is not None else f"row {number}"),
            problem_id=str(row.get("problem_id") or content_hash(prompt)),
            domain=str(row.get("domain") or file.stem),
            teacher=str(row.get("teacher") or ""),
            prompt=prompt,
            reasoning=reasoning,
            answer=answer,
            tokens=0,
        )


def _texts(place: str, row: Mapping[str, Any]) -> tuple[str, str, str] | Refused:
    """Return (prompt, reasoning, answer) of a row."""
    if row.get("messages") is not None and row.get("prompt") is None:
        return _exchange(row["messages"])
    missing = [name for name in ("prompt", "answer") if row.get(name) is None]
    if missing:
        raise DataError(
            f"{place}: no {' and no '.join(missing)}; a row has `prompt`, `reasoning` and "
            f"`answer`, or `messages`; this one has {', '.join(map(str, row)) or 'nothing'}"
        )
    wrong = [n for n in ("prompt", "reasoning", "answer") if not isinstance(row.get(n) or "", str)]
    if wrong:
        kind = type(row[wrong[0]]).__name__
        raise DataError(f"{place}: `{wrong[0]}` is no text but a {kind}")
    if row.get("reasoning") is None:
        reasoning, answer = _reply(row["answer"])
        return row["prompt"], reasoning, answer
    return row["prompt"], row["reasoning"], row["answer"]


def _exchange(turns: Any) -> tuple[str, str, str] | Refused:
    if not isinstance(turns, list) or not all(_is_turn(turn) for turn in turns):
        return Refused("a turn without the texts `role` and `content`")
    roles = [turn["role"] for turn in turns]
    if "system" in roles or "developer" in roles:
        return Refused("a system turn: an example is trained without one; put it in the question")
    if len(roles) > 2:
        return Refused("more than one user and one assistant turn")
    if roles != ["user", "assistant"]:
        return Refused("no user turn followed by an assistant turn")
    question, reply = turns
    apart = next((reply[n] for n in REASONING if isinstance(reply.get(n), str) and reply[n]), None)
    if apart is not None:
        return question["content"], apart, reply["content"]
    return (question["content"], *_reply(reply["content"]))


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, Mapping) and all(
        isinstance(turn.get(name), str) for name in ("role", "content")
    )


def _reply(text: str) -> tuple[str, str]:
    """Return reasoning and answer of a reply: `<think>` and its kin are taken apart."""
    split = split_reply(text)
    return split.reasoning, split.answer
