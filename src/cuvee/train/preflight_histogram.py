"""The lengths of rows as a picture: an inline SVG for the page, bars for a terminal.

In: `lengths` of `Findings`: `edges` (one more than `counts`) and `counts`, where `counts[i]`
rows have more than `edges[i]` and at most `edges[i + 1]` tokens. Bins are drawn equally wide,
whatever they span. Those above `max_tokens` are dropped rows, and coloured so.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from cuvee.train.preflight_words import plural

WIDTH, HEIGHT = 720, 214
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 40, 34
"""Margins in the SVG's own units."""
MOST_LABELS = 9
"""Edges with a label below the axis."""
WIDEST_COUNT = 26
"""Width of a bin from which on its count is written above the bar."""
LONGEST_BAR = 40
"""Characters of a terminal's bar."""
MOST_BARS = 16

Lengths = Mapping[str, Sequence[int]]
Bar = tuple[str, int, int, bool]
"""Span in words, rows, characters of the bar, dropped."""


def histogram(lengths: Lengths, max_tokens: int) -> Markup:
    """Return the picture; empty where nothing was counted.

    Empty bins at either end are left out.
    """
    edges, counts = _trimmed(lengths)
    if not counts:
        return Markup("")
    step = (WIDTH - LEFT - RIGHT) / len(counts)
    tallest = max(counts)
    parts = [
        _bar(edges[i : i + 2], count, (LEFT + i * step, step), tallest, max_tokens=max_tokens)
        for i, count in enumerate(counts)
        if count
    ]
    parts += [_label(LEFT + i * step, edges[i]) for i in _labelled(len(edges))]
    axis = Markup('<line class="axis" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
        LEFT, WIDTH - RIGHT, y=HEIGHT - BOTTOM
    )
    mark = _limit(edges, step, max_tokens)
    title = f"{plural(sum(counts), 'row')} of {edges[0] + 1:,} to {edges[-1]:,} tokens"
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>'
    ).format(WIDTH, HEIGHT, title, Markup("").join([*parts, axis, mark]))


def bars(lengths: Lengths, max_tokens: int) -> list[Bar]:
    """Return the histogram for a terminal; neighbouring bins are joined to `MOST_BARS` at most.

    Kept and dropped rows are never joined; empty bars at either end are left out.
    """
    edges, counts = _trimmed(lengths)
    if not counts:
        return []
    bins = [(edges[i], edges[i + 1], n) for i, n in enumerate(counts)]
    each = -(-len(bins) // MOST_BARS)
    joined: list[tuple[int, int, int]] = []
    for dropped in (False, True):
        side = [b for b in bins if (b[0] >= max_tokens) == dropped]
        groups = [side[i : i + each] for i in range(0, len(side), each)]
        joined += [(g[0][0], g[-1][1], sum(n for _, _, n in g)) for g in groups]
    tallest = max(n for _, _, n in joined)
    return [
        (f"{low + 1:,} to {high:,}", n, -(-LONGEST_BAR * n // tallest), low >= max_tokens)
        for low, high, n in joined
    ]


def _trimmed(lengths: Lengths) -> tuple[Sequence[int], Sequence[int]]:
    """Return edges and counts from the first bin that has rows to the last; both may be empty."""
    full = [i for i, n in enumerate(lengths["counts"]) if n]
    if not full:
        return [], []
    first, last = full[0], full[-1] + 1
    return lengths["edges"][first : last + 1], lengths["counts"][first:last]


def _bar(
    edges: Sequence[int], count: int, place: tuple[float, float], tallest: int, *, max_tokens: int
) -> Markup:
    height = (HEIGHT - TOP - BOTTOM) * count / tallest
    x, step = place
    above = Markup("")
    if step >= WIDEST_COUNT:
        above = Markup('<text class="middle" x="{:.1f}" y="{:.1f}">{:,}</text>').format(
            x + step / 2, HEIGHT - BOTTOM - height - 4, count
        )
    dropped = edges[0] >= max_tokens
    title = f"{edges[0] + 1:,} to {edges[1]:,} tokens: {plural(count, 'row')}"
    return above + Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title>'
        "</rect>"
    ).format(
        "bar dropped" if dropped else "bar",
        x + 0.5, HEIGHT - BOTTOM - height, max(0.5, step - 1), height,
        title + (", dropped" if dropped else ""),
    )  # fmt: skip


def _label(x: float, edge: int) -> Markup:
    place = "middle" if LEFT < x < WIDTH - RIGHT - 1 else ("start" if x <= LEFT else "end")
    return Markup('<text class="{}" x="{:.1f}" y="{}">{:,}</text>').format(
        place, x, HEIGHT - BOTTOM + 15, edge
    )


def _labelled(edges: int) -> list[int]:
    """Return the numbers of the edges that get a label: evenly spaced, the first one included."""
    every = -(-edges // MOST_LABELS)
    return list(range(0, edges, every))


def _limit(edges: Sequence[int], step: float, max_tokens: int) -> Markup:
    """Return the dashed line at `max_tokens`, where the axis reaches so far."""
    if not edges[0] <= max_tokens <= edges[-1]:
        return Markup("")
    i = next((i for i in range(len(edges) - 1) if max_tokens <= edges[i + 1]), 0)
    x = LEFT + (i + (max_tokens - edges[i]) / (edges[i + 1] - edges[i])) * step
    line = Markup('<line class="window" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>').format(
        TOP - 20, HEIGHT - BOTTOM, x=x
    )
    place = "end" if x > WIDTH / 2 else "start"
    text = Markup('<text class="{}" x="{:.1f}" y="{}">max_tokens = {:,}</text>').format(
        place, x + (-5 if place == "end" else 5), TOP - 26, max_tokens
    )
    return line + text
