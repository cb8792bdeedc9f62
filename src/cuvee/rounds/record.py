"""What is kept of each round: a row a trace, and what was counted and decided of a domain.

`03_verdicts/rounds/N/DOMAIN.parquet` holds `Attempt` rows, `DOMAIN.json` beside it one `Round`.
Not here: what is counted (`cuvee.rounds.count`), how is decided (`cuvee.rounds.decide`).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from cuvee.atomic import write_text
from cuvee.errors import DataError
from cuvee.runfolder import Run


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What came of one trace."""

    trace_id: str
    problem_id: str
    teacher: str
    answered: bool
    """Whether there is an answer, truncated ones included: the request did not fail."""
    checked: bool
    """Whether it counts for the pass rate, as in `cuvee.select.difficulty`."""
    right: bool
    text: str | None
    """Hash of reasoning and answer where it is fit to be an example, else None."""
    usd: float | None
    """What it cost, its judge's decision included; None where nothing of that is known."""
    tokens: int | None
    """Of prompt and answer."""
    refused: bool = False
    """The request failed, and the server will not answer it, however often it is asked."""


@dataclasses.dataclass(frozen=True)
class Round:
    """One round in one domain, and what was decided of the next one."""

    number: int
    """From 1: the stage `teach`."""
    asked: int
    """Problems."""
    requests: int
    """Traces, published ones included; failed requests too."""
    failed: int
    checked: int
    right: int
    """Of the checked; the pass rate is right / checked."""
    fit: int
    """Traces that pass every filter of the stage `select`."""
    new_examples: int
    examples: int
    """So far: at most `select.per_problem` of a problem and `select.target` in all."""
    usd: float | None
    """By the teachers' prices, whoever paid; None where nobody has a price or nobody counted."""
    tokens: int
    next_asked: int
    """Problems that are asked again; 0 where no further round is begun."""
    next_requests: int
    next_expected: float
    next_usd: float | None
    """Requests, new examples and cost that are expected of the next round, or would have been
    of one that is not begun because of them."""
    stop: str
    """Why no further round is begun (`cuvee.rounds.decide.Stop`), or empty."""
    why: str
    """The decision in words."""
    next_refused: int = 0
    """Problems that lack an example and are not asked again, as every request about them was
    refused for good."""

    @property
    def pass_rate(self) -> float | None:
        """Return the share in [0, 1] of right ones; None where nothing was checked."""
        return self.right / self.checked if self.checked else None


def attempts_file(run: Run, domain: str, number: int) -> Path:
    """Return the file of what came of each trace of a round."""
    return run.folder("verify") / "rounds" / str(number) / f"{domain}.parquet"


def round_file(run: Run, domain: str, number: int) -> Path:
    """Return the file of what was counted in a round, and decided of the next one."""
    return run.folder("verify") / "rounds" / str(number) / f"{domain}.json"


def write_round(path: Path, found: Round) -> None:
    """Write a round as JSON. Raises OSError with the path in it."""
    write_text(path, json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False) + "\n")


def read_round(path: Path) -> Round:
    """Return a round. Raises DataError where the file is missing or not what this writes."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Round(**values)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: no record of a round ({error}); `cuvee verify` writes it"
        ) from error


def read_rounds(run: Run, domain: str) -> list[Round]:
    """Return the rounds of a domain that were begun, in order; none without `rounds:`.

    Raises DataError as `read_round`.
    """
    if run.recipe.rounds is None:
        return []
    found = [read_round(round_file(run, domain, 1))]
    while found[-1].next_asked:
        found.append(read_round(round_file(run, domain, found[-1].number + 1)))
    return found
