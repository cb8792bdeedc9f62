"""What the preflight says: `Finding` in words with its rows, `Findings` as `preflight.json`.

Also the error a run stops with where a finding is one. Not here: how anything is found.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cuvee.atomic import write_text
from cuvee.errors import DataError

Level = Literal["error", "warning", "note"]
FINDINGS = "preflight.json"
SHOWN = 5
"""Row ids an error names."""
KEPT_IDS = 20
"""Row ids a finding holds."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing found."""

    level: Level
    """`error` stops the run, `warning` goes to the report, `note` is for the page alone."""
    check: str
    """Short name: `think_tags`, `too_long`, ..."""
    message: str
    """In words, with the way out."""
    count: int = 0
    """Rows concerned; 0 where it is the whole set."""
    ids: tuple[str, ...] = ()
    """Of the first `KEPT_IDS` of them."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the preflight found; written as `preflight.json`."""

    examples: int
    kept: int
    """Examples that are not too long: training and held out, the rows of `tokens.parquet`."""
    held_out: int
    """Of those, the ones that are measured and not trained on."""
    held_out_ids: list[str]
    dropped_too_long: list[str]
    """Ids of the examples longer than `max_tokens`."""
    answer_tokens_dropped: int
    """Tokens of reasoning and answer in those."""
    tokens: int
    """Of the training rows, prompts included: what one epoch reads."""
    answer_tokens: int
    """Of those, the tokens inside the loss: reasoning, answer, tags and end of turn."""
    longest: int
    """Tokens of the longest training row."""
    max_tokens: int
    lengths: dict[str, list[int]]
    """Histogram of all examples, kept and dropped: `counts[i]` of them have more than
    `edges[i]` and at most `edges[i + 1]` tokens; `max_tokens` is one of the edges."""
    without_reasoning: int
    """Kept rows whose reasoning is empty."""
    duplicates: int
    """Kept rows whose tokens are those of an earlier one."""
    think_opened_by_prompt: bool
    """Whether the chat template opens `<think>` itself, so that the target does not."""
    end_of_turn: str
    template_changes: list[str]
    """What was changed in the base's chat template or `eos_token`, in words."""
    rows: int
    """Rows training reads an epoch: packed rows where `packing`, else the training rows."""
    packing_efficiency: float | None
    """tokens / (rows * max_tokens), in (0, 1]; None without packing."""
    steps_per_epoch: int
    steps: int
    """Optimizer steps in all."""
    memory: dict[str, Any] | None
    """Estimated bytes of the fullest process; None where nothing is known of the model."""
    seconds: float | None
    """Estimated time of the training."""
    findings: list[Finding]
    """Errors first, then warnings, then notes."""

    @property
    def errors(self) -> list[Finding]:
        """Return the findings that stop a run."""
        return [found for found in self.findings if found.level == "error"]


def write_findings(out: Path, findings: Findings) -> None:
    """Write `preflight.json` into a folder, atomically. Raises OSError."""
    write_text(out / FINDINGS, json.dumps(dataclasses.asdict(findings), indent=1) + "\n")


def read_findings(out: Path) -> Findings:
    """Return what `preflight.json` in a folder says. Raises DataError where it cannot be read."""
    file = out / FINDINGS
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        found = [Finding(**f | {"ids": tuple(f["ids"])}) for f in said["findings"]]
        return Findings(**said | {"findings": found})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not the findings of a preflight: {error!r}") from error


def refusal(errors: Sequence[Finding]) -> str:
    """Return the message of the error that stops a run, naming each check and its rows."""
    lines = [error.message + _rows(error) for error in errors]
    if len(lines) == 1:
        return lines[0]
    return "the preflight found:\n" + "\n".join(f"  {line}" for line in lines)


def _rows(finding: Finding) -> str:
    if not finding.ids:
        return ""
    count = "1 row" if finding.count == 1 else f"{finding.count} rows"
    more = f" and {finding.count - SHOWN} more" if finding.count > SHOWN else ""
    return f" ({count}: {', '.join(finding.ids[:SHOWN])}{more})"
