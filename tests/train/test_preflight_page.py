"""The preflight shown: which rows, their text by loss mask, the page in a browser, the terminal."""

import dataclasses
import html
import io
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cuvee.models.random_model import write_random_model
from cuvee.models.tokens import IGNORED
from cuvee.recipe import Train
from cuvee.records import Example, write_rows
from cuvee.train.preflight import Finding, Findings, preflight, read_findings
from cuvee.train.preflight_histogram import bars, histogram
from cuvee.train.preflight_page import page, shown_text, terminal, write_page
from cuvee.train.preflight_samples import MOST_PIECES, Piece, Sample, pieces, samples
from cuvee.train.preflight_words import (
    MEMORY,
    assumptions,
    duration,
    estimates,
    quoted_ids,
    size,
)

Browser = Callable[..., dict[str, Any]]

HOSTILE = (
    '</pre></details><script>document.title = "owned"</script><img src=x onerror=alert(1)>'
    " & evil\u202etxt.exe\u202c \x1b[31mred\u200b שלום مرحبا 🙂"
)
LONG = "word " * 400


def row(name: str, reasoning: str, *, prompt: str = "What is 2 + 2?") -> Example:
    return Example(name, f"p-{name}", "math", "alice", prompt, reasoning, r"\boxed{4}", 0)


ROWS = [
    row("first", "Two and two."),
    row("short", "4"),
    row('"><b>evil', HOSTILE, prompt=f"Say {HOSTILE}"),
    row("empty", ""),
    row("line", "x" * 9000),
    row("first twin", "Two and two."),
    *(row(f"row{number}", f"Two and two, {number} times." * 3) for number in range(20)),
    row("huge", "y" * 20000),
]


@pytest.fixture(scope="module")
def folder(base: Path, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: Any) -> Path:
    """Return the folder of a real preflight of ROWS, with `examples.parquet` in it."""
    out: Path = tmp_path_factory.mktemp("preflight")
    write_rows(out / "examples.parquet", ROWS, Example)
    config = json.loads((base / "config.json").read_text())
    wide = tmp_path_factory.mktemp("wide")
    write_random_model(wide)
    (wide / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32768}))
    train = Train(max_tokens=12000, held_out=0.2)
    preflight(out / "examples.parquet", tokenizer, base=wide, train=train, out=out)
    return out


@pytest.fixture(scope="module")
def findings(folder: Path) -> Findings:
    return read_findings(folder)


@pytest.fixture(scope="module")
def shown(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    return samples(folder, tokenizer, count=12, examples=folder / "examples.parquet")


@pytest.fixture(scope="module")
def everything(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """Return all rows, the hostile one too."""
    return samples(folder, tokenizer, count=100, examples=folder / "examples.parquet")


# Pieces


def metaspace() -> PreTrainedTokenizerBase:
    """Return a tokenizer of Llama 2's kind: spaces as `▁`, other characters as bytes."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh"]
    backend = Tokenizer(
        models.BPE({t: i for i, t in enumerate(tokens)}, [], byte_fallback=True, unk_token="<unk>")
    )
    backend.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


METASPACE = metaspace()


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def masked(ids: Sequence[int], mask: Sequence[bool]) -> list[int]:
    return [i if inside else IGNORED for i, inside in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@given(text=st.text(max_size=12), choice=st.randoms(use_true_random=False))
@example(text="🙂🙂 €€ a\ufffdb", choice=random.Random(1))
def test_the_pieces_together_are_the_text(
    kind: str, tokenizer: PreTrainedTokenizerBase, text: str, choice: Any
) -> None:
    used = tokenizer if kind == "bytes" else METASPACE
    ids = ids_of(used, text)[:MOST_PIECES]
    mask = [choice.random() < 0.5 for _ in ids]
    found, undrawn = pieces(used, ids, masked(ids, mask))
    whole = used.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert "".join(piece.text for piece in found) == whole
    assert undrawn == 0
    assert any(mask) == any(piece.trained for piece in found)


@given(ids=st.lists(st.integers(0, 400), max_size=30))
def test_any_ids_at_all_have_pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> None:
    found, _ = pieces(tokenizer, ids, masked(ids, [i % 3 > 0 for i in range(len(ids))]))
    assert bool(found) == bool(ids)


def test_a_character_over_the_border_is_one_piece_that_says_so(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    for used in (tokenizer, METASPACE):
        ids = ids_of(used, "a€b")
        (start,) = [i for i in range(len(ids)) if used.decode(ids[:i]).strip() == "a"]
        mask = [i > start for i in range(len(ids))]
        found, _ = pieces(used, ids, masked(ids, mask))
        assert [(piece.text, piece.kind) for piece in found] == [
            ("a", "text"), ("€", "split"), ("b", "text")
        ]  # fmt: skip
        assert [piece.trained for piece in found] == [False, True, True]


def test_special_tokens_are_pieces_of_their_own_and_the_target_alone_is_trained(
    shown: list[Sample],
) -> None:
    sample = next(sample for sample in shown if sample.id.startswith("first"))
    assert sample.pieces == (
        Piece("<|im_start|>", trained=False, kind="token"),
        Piece("user\nWhat is 2 + 2?", trained=False),
        Piece("<|im_end|>", trained=False, kind="token"),
        Piece("\n", trained=False),
        Piece("<|im_start|>", trained=False, kind="token"),
        Piece("assistant\n", trained=False),
        Piece("<think>\nTwo and two.\n</think>\n\n\\boxed{4}", trained=True),
        Piece("<|im_end|>", trained=True, kind="token"),
    )


def test_an_id_that_no_token_has_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = [*ids_of(tokenizer, "ab"), 99999, *ids_of(tokenizer, "c")]
    found, _ = pieces(tokenizer, ids, ids)
    texts = [piece.text for piece in found]
    assert texts == ["ab", "[99999: no token of the tokenizer]", "c"]


def test_a_mask_that_changes_all_the_time_is_counted_not_drawn(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids = ids_of(tokenizer, "x" * 500)
    found, undrawn = pieces(tokenizer, ids, masked(ids, [i % 2 == 0 for i in range(len(ids))]))
    assert len(found) == MOST_PIECES
    assert undrawn == len(ids) - MOST_PIECES


# Which rows


def test_longest_shortest_dropped_and_held_out_rows_are_shown(shown: list[Sample]) -> None:
    why = {sample.id: sample.why for sample in shown}
    assert "longest" in why["line"]
    assert why["huge"] == "dropped: longer than max_tokens"
    assert any("shortest" in said for said in why.values())
    assert any("held out" in said for said in why.values())
    assert len(shown) == len(why) == 12


def test_a_row_of_each_finding_is_shown_first(findings: Findings, shown: list[Sample]) -> None:
    named = [f.ids[0] for f in findings.findings if f.ids and f.check != "too_long"]
    assert named
    assert {sample.id for sample in shown[: len(named)]} == set(named)


def test_so_many_rows_are_shown_as_are_asked_for(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    file = folder / "examples.parquet"
    for count in (1, 5, 100):
        found = samples(folder, tokenizer, count=count, examples=file)
        assert len(found) == min(count, len(ROWS))
    assert len({sample.id for sample in found}) == len(ROWS)


def test_without_the_examples_dropped_rows_cannot_be_shown(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert "huge" not in {sample.id for sample in samples(folder, tokenizer, count=100)}


# The page


def test_the_page_names_every_finding_and_its_rows(findings: Findings, shown: list[Sample]) -> None:
    text = page(findings, shown, title="demo, math")
    for finding in findings.findings:
        assert str(shown_text(finding.message)) in text
        assert all(
            str(html.escape(name).replace("&quot;", "&#34;")) in text for name in finding.ids
        )
    assert "huge" in text


def test_the_page_is_written_beside_the_findings(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    file = write_page(folder, tokenizer, title="demo", examples=folder / "examples.parquet")
    assert file == folder / "preflight.html"
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_long_text_shows_its_beginning_and_end_and_counts_the_rest() -> None:
    text = str(shown_text("a" * 50 + "b" * 100 + "c" * 20, 50, 20))
    assert text == "a" * 50 + '<span class="more"> … 100 more characters … </span>' + "c" * 20


def test_newlines_are_marked_and_kept_and_unseen_characters_numbered() -> None:
    assert str(shown_text("a\n\tb\r")) == (
        'a<i class="newline"></i>\n\tb<span class="control">U+000D</span>'
    )


@given(st.text(max_size=60))
def test_no_text_is_markup(text: str) -> None:
    shown = re.sub(
        r'<(i class="newline"|/i|span class="control"|/span)>', "", str(shown_text(text))
    )
    assert not re.search(r"[<>\x00-\x08\x0b-\x1f\u202a-\u202e\u200b]", shown)


# Figures and words


LENGTHS = {"edges": [0, 10, 20, 40, 80], "counts": [0, 3, 1, 2]}


def test_bars_have_the_length_of_their_count() -> None:
    assert bars(LENGTHS, 40) == [
        ("11 to 20", 3, 40, False), ("21 to 40", 1, 14, False), ("41 to 80", 2, 27, True)
    ]  # fmt: skip


@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=90), limit=st.integers(0, 90))
def test_joined_bars_lose_no_row_and_mix_no_kept_with_dropped(
    counts: list[int], limit: int
) -> None:
    edges = [5 * i for i in range(len(counts) + 1)]
    found = bars({"edges": edges, "counts": counts}, 5 * limit)
    assert sum(count for _, count, _, _ in found) == sum(counts)
    dropped = sum(count for _, count, _, is_dropped in found if is_dropped)
    assert dropped == sum(counts[limit:])
    assert len(found) <= 17


def test_the_picture_has_a_bar_a_bin_and_marks_the_limit() -> None:
    picture = str(histogram(LENGTHS, 40))
    assert re.findall(r"<title>([^<]*)</title></rect>", picture) == [
        "11 to 20 tokens: 3 rows", "21 to 40 tokens: 1 row", "41 to 80 tokens: 2 rows, dropped"
    ]  # fmt: skip
    assert "max_tokens = 40" in picture
    assert "6 rows of 11 to 80 tokens" in picture
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"><title>', picture)]
    assert heights == pytest.approx([140, 140 / 3, 140 * 2 / 3], abs=0.06)


def test_nothing_counted_draws_nothing() -> None:
    assert str(histogram({"edges": [0, 8], "counts": [0]}, 8)) == ""
    assert bars({"edges": [0, 8], "counts": [0]}, 8) == []


def test_estimates_are_said_in_units_people_know_and_with_what_they_assume(
    findings: Findings,
) -> None:
    memory = {"weights": 1_540_000_000, "total": 999_600, "moment": "the end", "assumptions": ["a"]}
    known = dataclasses.replace(findings, memory=memory, seconds=5400.0)
    assert estimates(known) == [
        ("memory: weights", "1.5 GB"), ("memory: total", "1.0 MB"), ("fullest at", "the end"),
        ("time", "1.5 h"),
    ]  # fmt: skip
    assert assumptions(known) == ["a"]
    unknown = dataclasses.replace(findings, memory=None, seconds=None)
    assert estimates(unknown) == [("memory", "not estimated"), ("time", "not estimated")]
    assert assumptions(unknown) == []


def test_all_that_is_estimated_of_a_real_model_is_shown(
    findings: Findings, shown: list[Sample]
) -> None:
    assert findings.memory is not None
    text = page(findings, shown, title="demo")
    assert set(findings.memory) == {*MEMORY, "moment", "assumptions"}
    assert all(str(html.escape(said)) in text for said in assumptions(findings))
    assert size(findings.memory["total"]) in text


def test_sizes_and_durations_round_as_people_do() -> None:
    assert [size(n) for n in (0, 999, 1000, 99_950, 10**12)] == [
        "0 B", "999 B", "1.0 KB", "100 KB", "1.0 TB"
    ]  # fmt: skip
    assert [duration(s) for s in (0.1, 8, 89, 120, 7200, 86400 * 3)] == [
        "under 1 s", "8 s", "89 s", "2 min", "2.0 h", "3.0 days"
    ]  # fmt: skip


def test_a_finding_s_rows_are_counted_where_they_are_not_named() -> None:
    ids = tuple(f"r{n}" for n in range(20))
    assert quoted_ids(Finding("error", "x", "m", 2000, ids)) == (
        "2,000 rows: r0, r1, r2, r3, r4 and 1,995 more"
    )
    assert quoted_ids(Finding("error", "x", "m", 1, ("a\nb",))) == "1 row: a b"
    assert quoted_ids(Finding("error", "x", "m", 3, ())) == "3 rows"
    assert quoted_ids(Finding("error", "x", "m", 0, ())) == ""


# The terminal


def printed(findings: Findings, shown: Sequence[Sample]) -> str:
    console = Console(width=100, record=True, force_terminal=True, file=io.StringIO())
    console.print(terminal(findings, shown, title="demo [bold]x[/bold]"))
    return console.export_text()


def test_the_terminal_shows_findings_figures_and_what_is_learned(
    findings: Findings, shown: list[Sample]
) -> None:
    text = printed(findings, [s for s in shown if s.id.startswith("first")])
    assert "demo [bold]x[/bold]: " in text
    assert all(f"{f.level}: " in text for f in findings.findings)
    assert "⟦<think>\nTwo and two.\n</think>\n\n\\boxed{4}<|im_end|>⟧" in re.sub(" +\n", "\n", text)
    assert "11,999" not in text


def test_the_terminal_obeys_no_row(findings: Findings, everything: list[Sample]) -> None:
    evil = [s for s in everything if "evil" in s.id]
    assert evil
    text = printed(findings, evil)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31mred" in text


# The page in a real browser

LOOK = """
function look(window, page) {
  const screen = page.documentElement.clientWidth;
  const outside = [...page.querySelectorAll("main *, header *")].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width && (box.right > screen + 0.5 || box.left < -0.5);
  });
  const colour = name => window.getComputedStyle(page.querySelector("pre " + name)).backgroundColor;
  return {
    screen: screen, scroll: page.documentElement.scrollWidth, title: page.title,
    outside: outside.map(element => element.outerHTML.slice(0, 90)).slice(0, 5),
    scripts: page.scripts.length, images: page.images.length,
    requests: window.performance.getEntriesByType("resource").length,
    trained: [...page.querySelectorAll("pre")].map(
      row => [...row.querySelectorAll("bdi.trained")].map(piece => piece.textContent).join("")),
    bars: page.querySelectorAll("svg rect").length,
    colours: [".trained", ".prompt"].map(colour),
    background: window.getComputedStyle(page.body).backgroundColor,
  };
}
"""


def test_hostile_rows_run_nothing_load_nothing_and_fit_every_screen(
    browser: Browser, findings: Findings, everything: list[Sample]
) -> None:
    found = browser(page(findings, everything, title="demo"), 360, 820, 1200, look=LOOK)
    assert {width: seen["outside"] for width, seen in found.items() if seen["outside"]} == {}
    assert all(seen["scroll"] <= seen["screen"] for seen in found.values())
    seen = found["820"]
    assert seen["title"] == "demo · preflight"
    assert (seen["scripts"], seen["images"], seen["requests"]) == (0, 0, 0)
    assert seen["bars"] == sum(count > 0 for count in findings.lengths["counts"])
    evil = next(n for n, sample in enumerate(everything) if "evil" in sample.id)
    assert '</pre></details><script>document.title = "owned"</script><img' in seen["trained"][evil]
    assert "evilU+202Etxt.exeU+202C U+001B[31mredU+200B שלום" in seen["trained"][evil]
    plain = next(n for n, sample in enumerate(everything) if sample.id.startswith("first"))
    assert seen["trained"][plain] == "<think>\nTwo and two.\n</think>\n\n\\boxed{4}<|im_end|>"
    assert seen["background"] == "rgb(253, 252, 250)"
    assert seen["colours"] == ["rgb(207, 233, 220)", "rgba(0, 0, 0, 0)"]


def test_a_dark_system_gets_a_dark_page(
    browser: Browser, findings: Findings, shown: list[Sample]
) -> None:
    seen = browser(page(findings, shown, title="demo"), 390, look=LOOK, dark=True)["390"]
    assert seen["background"] == "rgb(23, 20, 21)"
    assert seen["colours"] == ["rgb(28, 74, 57)", "rgba(0, 0, 0, 0)"]
