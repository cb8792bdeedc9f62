"""How a plan's numbers are said: short, with their ranges, and the first sentence."""

from collections.abc import Callable, Sequence

from cuvee.plan.figures import Figure
from cuvee.plan.rows import Expected, Row
from cuvee.plan.training import Setup

GIGA = 1e9
SIZES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """Return a count in at most five characters and a unit: 999, 12.3k, 4.56M."""
    for size, unit in SIZES:
        if value >= size:
            return (
                f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:.0f}{unit}"
            )
    return f"{value:.0f}"


def hours(value: float) -> str:
    """Return a time: 45 s, 12 min, 31 h."""
    seconds = value * 3600
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{value:,.3g} h" if value < 100 else f"{value:,.0f} h"


def size(value: float) -> str:
    """Return bytes: 12 MB, 410 GB."""
    for unit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return (
                f"{value / unit:.3g} {word}"
                if value < 999.5 * unit
                else f"{value / unit:.0f} {word}"
            )
    return f"{value:.0f} B"


def usd(value: float) -> str:
    """Return dollars."""
    return f"${value:,.0f}" if value >= 10 or value == 0 else f"${value:,.2g}"


def short(figure: Figure) -> str:
    """Return a count with its range, in full: 4,100 [3,000-5,000]."""
    value = f"{figure.value:,.0f}"
    low, high = f"{figure.low:,.0f}", f"{figure.high:,.0f}"
    return value if low == high else f"{value} [{low}-{high}]"


def ranged(figure: Figure | None, say: Callable[[float], str]) -> str:
    """Return a figure as `say` says its numbers, with its range; `unknown` for None."""
    if figure is None:
        return "unknown"
    value, low, high = (say(end) for end in (figure.value, figure.low, figure.high))
    return value if low == high else f"{value} [{low}-{high}]"


def headline(
    whole: Row, setup: Setup, one_gpu: float, expected: Sequence[Expected], *, left: Row
) -> str:
    """Return the plan in one sentence."""
    disk = None if whole.disk is None else whole.disk + (whole.scratch or whole.disk.scaled(0))
    parts = [ranged(whole.usd, usd), ranged(whole.hours, hours), f"{ranged(disk, size)} of disk"]
    unknown = [name for name, part in zip(("dollars", "hours", "disk"), parts, strict=True)
               if part.startswith("unknown")]  # fmt: skip
    numbers = ", ".join(part for part in parts if not part.startswith("unknown"))
    said = f"about {numbers}" if numbers else ""
    said += f"{'; ' if said else ''}{', '.join(unknown)} unknown" if unknown else ""
    gpus = max(whole.gpus, setup.processes if setup.device == "cuda" else 0)
    devices = f"needs {gpus} GPUs of {one_gpu / GIGA:.0f} GB" if gpus else "needs no GPU"
    examples = ", ".join(_share(each) for each in expected)
    done = f"; left: {ranged(left.hours, hours)}" if left.hours != whole.hours else ""
    return f"{said}; {devices}; examples: {examples}{done}"


def _share(expected: Expected) -> str:
    target, found = expected.target, expected.examples
    if found is None:
        return f"{expected.domain} unknown" + ("" if target is None else f" of {target:,}")
    if target is None:
        return f"{expected.domain} {found.value:,.0f}"
    return f"{expected.domain} {min(found.value, target):,.0f} of {target:,}"
