"""What a plan assumes where nothing was measured: each by name, with its range and reason.

`--assume NAME=VALUE` or `--assume NAME=LOW..HIGH` overrides one; most can be given for one
domain, teacher, benchmark or verifier alone (`pass_rate.math`). Out: figures, and the list of
those that a plan really used. Not here: what was measured (`cuvee.plan.measured`).
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence

from cuvee.errors import RecipeError
from cuvee.plan.figures import Figure


@dataclasses.dataclass(frozen=True)
class Kind:
    """An assumption that can be made."""

    words: str
    range: tuple[float, float, float] | None = None
    """Value, low, high; None where it follows from the recipe or has no default."""
    share: bool = False
    """Whether it lies in [0, 1]."""
    whole: bool = False
    """Whether it is of the whole plan, and has no scope."""


KINDS: dict[str, Kind] = {
    "problems": Kind("problems of a domain or benchmark, after dropping duplicates"),
    "pass_rate": Kind("share of a domain's answers that are correct", (0.6, 0.4, 0.8), share=True),
    "fit_rate": Kind(
        "share of the correct answers that pass the other filters", (0.7, 0.5, 0.9), share=True
    ),
    "alike": Kind(
        "share of the problems whose answers are all right or all wrong", (0.5, 0.0, 1.0),
        share=True,
    ),
    "prompt_tokens": Kind("tokens of a prompt", (200, 100, 500)),
    "answer_tokens": Kind("tokens of an answer, reasoning included"),
    "judge_tokens": Kind("tokens of a judge's answer", (300, 100, 1000)),
    "judged_rate": Kind("share of the answers that a judge is asked about: with an answer stated, "
                        "each text once", (0.95, 0.5, 1), share=True),
    "stated_tokens": Kind("tokens of an answer without its reasoning", (300, 50, 1500)),
    "grade_tokens": Kind("tokens of an answer that grades by a rubric", (400, 150, 1500)),
    "refine_share": Kind("tokens of a refiner's answer by those of the example it is shown",
                         (0.7, 0.3, 1.5)),
    "tokens_per_second": Kind("tokens a second of one request in flight"),
    "problems_per_second": Kind("problems loaded, compared and checked", (200, 20, 1000)),
    "verify_per_second": Kind("answers checked a second"),
    "select_per_second": Kind("answers filtered a second", (500, 100, 1500)),
    "gpu_gb": Kind("memory of one GPU, GB", (80, 80, 80), whole=True),
    "gpu_tflops": Kind("bf16 tera-operations a second of one GPU (A100)", (312, 312, 312),
                       whole=True),
    "gpu_share": Kind("share of them a training step reaches", (0.4, 0.25, 0.5), share=True,
                      whole=True),
    "cpu_gflops": Kind("giga-operations a second of this CPU in training", (100, 30, 400),
                       whole=True),
    "disk_mb_per_second": Kind("MB a second read and written", (500, 150, 2000), whole=True),
    "start_seconds": Kind("seconds to start a training or an engine", (20, 5, 60), whole=True),
    "bytes_per_token": Kind("bytes on disk of a token of an answer, ledger included",
                            (6, 3, 10), whole=True),
    "usd_per_gpu_hour": Kind("price of a GPU hour", (0, 0, 0), whole=True),
    "parameters": Kind("weights of the base", whole=True),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Assumption:
    """One that a plan used."""

    name: str
    value: float
    low: float
    high: float
    given: bool
    """Whether the user gave it (`--assume`)."""
    words: str


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What was given, and a record of what was used."""

    given: dict[str, Figure]
    used: dict[str, Assumption] = dataclasses.field(default_factory=dict)

    def figure(
        self, kind: str, scope: str = "", *, default: tuple[float, float, float] | None = None,
        why: str = "",
    ) -> Figure:  # fmt: skip
        """Return an assumption for a scope: as given for it, as given for all, or by default.

        `default` (value, low, high) stands where the kind has none of its own; `why` says what
        it follows from. Raises KeyError where there is neither.
        """
        found = self.wish(kind, scope)
        if found is not None:
            return found
        chosen = default or KINDS[kind].range
        if chosen is None:
            raise KeyError(kind)
        scoped = default is not None and scope != ""
        figure = Figure(*chosen, "assumed")
        self._note(f"{kind}.{scope}" if scoped else kind, figure, given=False, why=why)
        return figure

    def wish(self, kind: str, scope: str = "") -> Figure | None:
        """Return what was given for a scope or for all; None where nothing was."""
        for name in (f"{kind}.{scope}", kind):
            if name in self.given:
                self._note(name, self.given[name], given=True, why="")
                return self.given[name]
        return None

    def _note(self, name: str, figure: Figure, *, given: bool, why: str) -> None:
        words = KINDS[name.partition(".")[0]].words
        self.used[name] = Assumption(
            name, figure.value, figure.low, figure.high, given, f"{words}: {why}" if why else words
        )


def parse(wishes: Sequence[str], *, scopes: Iterable[str]) -> Assumptions:
    """Return the assumptions of `--assume NAME=VALUE` or `NAME=LOW..HIGH`.

    `scopes` are the names a kind may be given for. Raises RecipeError for an unknown name (with
    the nearest), an unknown scope, and a value out of its range.
    """
    given = {}
    for wish in wishes:
        name, equals, text = wish.partition("=")
        if not equals:
            raise RecipeError(f"--assume {wish!r}: write NAME=VALUE, e.g. pass_rate=0.6")
        kind = _kind(name, sorted(scopes))
        given[name] = _figure(name, text, share=KINDS[kind].share)
    return Assumptions(given)


def _kind(name: str, scopes: list[str]) -> str:
    kind, dot, scope = name.partition(".")
    if kind not in KINDS:
        raise RecipeError(f"--assume {name}: no such assumption; {_nearest(kind, list(KINDS))}")
    if dot and KINDS[kind].whole:
        raise RecipeError(f"--assume {name}: {kind} is of the whole plan; leave out .{scope}")
    if dot and scope not in scopes:
        raise RecipeError(
            f"--assume {name}: the recipe has no {scope!r}; {_nearest(scope, scopes)}"
        )
    return kind


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _figure(name: str, text: str, *, share: bool) -> Figure:
    low, dots, high = text.partition("..")
    try:
        ends = [float(end) for end in ((low, high) if dots else (text,))]
    except ValueError as error:
        raise RecipeError(
            f"--assume {name}={text}: not a number, nor LOW..HIGH, e.g. 0.5..0.7"
        ) from error
    # Rates are divided by: 0 is allowed of a share, a price and a number of problems alone.
    least = share or name.partition(".")[0] in ("problems", "usd_per_gpu_hour")
    if any(not math.isfinite(end) or end < 0 or (end == 0 and not least) for end in ends):
        raise RecipeError(f"--assume {name}={text}: a finite number above 0 is needed")
    if ends != sorted(ends) or (share and ends[-1] > 1):
        allowed = "0 <= LOW <= HIGH <= 1" if share else "LOW <= HIGH"
        raise RecipeError(f"--assume {name}={text}: {allowed} is allowed")
    return Figure(sum(ends) / len(ends), ends[0], ends[-1], "assumed")
