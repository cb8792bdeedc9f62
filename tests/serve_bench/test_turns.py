"""Against a server whose sleeps are known, the bench says what they are; what fails, it says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import EngineError
from cuvee.serve.bench.asking import read
from cuvee.serve.bench.shown import Result, as_json, loads, notes, results
from cuvee.serve.bench.subjects import Remote
from cuvee.serve.bench.turns import Measured, Settings, measure

Serve = Callable[[Any], str]


def bench(url: str, **changes: Any) -> tuple[list[Result], Measured, Settings]:
    plain = {"concurrency": (1,), "context": (20,), "tokens": 6, "repeats": 1, "seed": 1}
    settings = Settings(**{**plain, **changes})
    subjects = [Remote("m", url, "m", "hush")]
    measured = measure(subjects, settings, folder=Path(), tick=lambda n: None)
    return results(subjects, settings, measured), measured, settings


def test_times_are_those_of_the_clock() -> None:
    times = iter([3.0, 4.0, 6.0])

    async def lines() -> AsyncIterator[bytes]:
        yield b": kept open\n"
        yield b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n'
        for text in ("a", "b", "c"):
            piece = {"choices": [{"index": 0, "text": text}]}
            yield b"data: " + json.dumps(piece).encode() + b"\n"
        yield b'data: {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}\n'
        yield b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}\n'
        yield b"data: [DONE]\n"

    found = asyncio.run(read(lines(), sent=1.0, clock=lambda: next(times)))
    assert (found.sent, found.pieces, found.failed) == (1.0, (3.0, 4.0, 6.0), None)
    assert (found.prompt_tokens, found.tokens, found.finish_reason) == (7, 3, "length")


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "chat"])
def test_the_figures_are_those_of_the_server_s_sleeps(
    kind: str, behaviour: Any, fake: Serve
) -> None:
    # A sleep may last longer, on a busy machine much longer, but never shorter.
    server = behaviour(kind=kind, first=0.2, gap=0.1)
    (result,), _, settings = bench(fake(server), concurrency=(2,), context=(40,))
    found = result.cell
    assert found is not None, result.failed
    assert 0.2 <= found.first_seconds.median < 2
    assert 0.2 < found.first_seconds_p95 < 2
    assert 0.05 < found.gap_seconds.median < 1
    assert 1 < found.each_per_second.median < 15
    assert found.all_per_second is None or 2 < found.all_per_second.median < 30
    assert 4 < found.prompt_per_second.median <= 2 * 40 / 0.2
    assert found.answer_tokens == (6, 6)
    assert found.prompt_tokens == (40, 40)
    assert notes([result], settings, Measured([], [])) == []


def test_prompts_are_new_each_time_and_lengths_are_forced(behaviour: Any, fake: Serve) -> None:
    for kind in ("llama.cpp", "vllm"):
        server = behaviour(kind=kind, gap=0.002)
        bench(fake(server), concurrency=(1, 3), context=(20, 30), repeats=2)
        counted = [body for body in server.bodies if body["max_tokens"] == 6]
        assert [len(body["prompt"]) for body in counted] == 2 * ([20] * 4 + [30] * 4)
        assert len({tuple(body["prompt"]) for body in counted}) == len(counted)
        assert all(body["ignore_eos"] is True for body in counted)
        assert all(body["stream_options"] == {"include_usage": True} for body in counted)
        forced = "cache_prompt" if kind == "llama.cpp" else "min_tokens"
        assert all(body[forced] == (False if kind == "llama.cpp" else 6) for body in counted)


def test_a_server_that_knows_only_chats_is_told_nothing_that_it_may_not_know(
    behaviour: Any, fake: Serve
) -> None:
    server = behaviour(kind="chat", gap=0.002)
    bench(fake(server))
    known = {"model", "messages", "max_tokens", "stream", "stream_options"}
    assert all(set(body) == known for body in server.bodies)


def test_a_shorter_answer_has_no_number_where_it_was_forced_and_is_told_where_not(
    behaviour: Any, fake: Serve
) -> None:
    (result,), _, settings = bench(fake(behaviour(most_tokens=5)))
    assert result.cell is None
    assert "5 tokens where 6 were asked for (stop)" in (result.failed or "")
    (result,), measured, settings = bench(fake(behaviour(kind="chat", most_tokens=5)))
    assert result.cell is not None
    (said,) = notes([result], settings, measured)
    assert "answers had 5 of 6 tokens" in said


def test_one_broken_answer_leaves_its_cell_without_a_number_and_others_with_theirs(
    behaviour: Any, fake: Serve
) -> None:
    server = behaviour(gap=0.002, fail=lambda body: 500 if len(body["prompt"]) == 30 else None)
    found, measured, settings = bench(fake(server), context=(20, 30), repeats=2)
    assert [result.cell is None for result in found] == [False, True]
    assert (found[1].failed or "").startswith("2 of 2 repeats: 1 of 1 answers: HTTP 500: broken")
    assert (
        json.loads(json.dumps(as_json(settings, measured, found, [])))["cells"][1]["cell"] is None
    )


def test_a_key_that_a_server_repeats_is_blotted_out(behaviour: Any, fake: Serve) -> None:
    found, measured, settings = bench(fake(behaviour(fail=lambda body: 401)))
    assert "[API key]" in (found[0].failed or "")
    told = json.dumps(as_json(settings, measured, found, loads([], found, measured)))
    assert "hush" not in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"usage": False}, "does not say how many tokens"),
        ({"cached": 20}, "had read the whole prompt before"),
    ],
)
def test_what_cannot_be_counted_is_no_number(
    changes: dict[str, Any], said: str, behaviour: Any, fake: Serve
) -> None:
    (result,), _, _ = bench(fake(behaviour(**changes)))
    assert result.cell is None
    assert said in (result.failed or "")


def test_reuse_pieces_of_several_tokens_and_a_queue_are_said(behaviour: Any, fake: Serve) -> None:
    server = behaviour(cached=5, a_piece=2, slots=1)
    (result,), measured, settings = bench(fake(server), concurrency=(2,), tokens=8)
    assert result.cell is not None
    (said,) = notes([result], settings, measured)
    assert "10 prompt tokens had been read before" in said
    assert "2.0 tokens came at once" in said
    assert "hardly generated at the same time" in said


def test_a_server_that_does_not_answer_is_an_error(behaviour: Any, fake: Serve) -> None:
    with pytest.raises(EngineError, match=r"no answer to a short question: cannot connect"):
        bench("http://127.0.0.1:9/v1")
    with pytest.raises(EngineError, match=r"no answer to a short question: HTTP 503: broken"):
        bench(fake(behaviour(kind="chat", fail=lambda body: 503)))
