"""What servers refuse for good is told apart from what fails, and holds no round up."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cuvee.pipeline import run_stages
from cuvee.records import Problem, read_rows
from cuvee.rounds.count import is_refusal
from cuvee.rounds.record import Attempt, attempts_file, read_rounds
from cuvee.runfolder import Run
from cuvee.teach.exchange import Try, Wire, post

from ..teach.conftest import Behaviour, Body, completion, loopback
from .test_rounds_stage import ASKING, PROBLEMS, TWO, a_run

TOO_LONG = '{"error": {"message": "no", "code": "context_length_exceeded"}}'
REPLIES = [(status, "{}") for status in (200, 301, 400, 403, 404, 408, 413, 422, 425, 429)]
REPLIES += [(status, "{}") for status in (451, 500, 502, 503, 504, 524, 529)]
REPLIES += [(status, TOO_LONG) for status in (400, 429, 500, 502)]
REPLIES += [(200, '{"error": "the prompt is longer than the context size"}'), (200, "context")]


def test_the_words_of_an_error_tell_the_fate_that_the_try_had() -> None:
    async def behave(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        status, text = REPLIES[body["seed"]]
        return web.Response(status=status, text=text, content_type="application/json")

    async def tries(url: str) -> list[Try]:
        async with aiohttp.ClientSession() as session:
            wire = Wire(session, f"{url}/chat/completions", stream=False)
            bodies = [{"messages": [{"content": ""}], "seed": n} for n in range(len(REPLIES))]
            sent = [json.dumps(body).encode() for body in bodies]
            return [await post(wire, body, timeout=5, left=5) for body in sent]

    with loopback(behave) as server:
        found = asyncio.run(tries(server.url))
    fates = [one.fate == "refused" for one in found]
    assert [is_refusal(one.error or "") for one in found] == fates
    assert 0 < sum(fates) < len(fates)


@pytest.mark.parametrize("error", ["cannot connect: refused", "given up after 9 s (deadline); HTTP "
                         "400: no", "no complete answer within 5 s", ""])  # fmt: skip
def test_what_fails_on_the_way_is_no_refusal(error: str) -> None:
    assert not is_refusal(error)


def asked_of(path: Path, behave: Any) -> Run:
    """Return a run of two rounds whose teacher replies with (status, text) to (gold, n).

    `n` numbers the problem; `behave` may keep count of what it was asked.
    """
    problems: dict[str, tuple[int, str]] = {}

    async def reply(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        number, gold = problems[body["messages"][-1]["content"]]
        status, text = behave(number, gold)
        if status != 200:
            return web.json_response({"error": {"message": text}}, status=status)
        return web.json_response(completion(f"<think>hm</think>\\boxed{{{text}}}"))

    behaviour: Behaviour = reply
    with loopback(behaviour) as server:
        ann = {"name": "ann", "url": server.url, "model": "m", "retries": 0, "concurrency": 1}
        run = a_run(path, teachers=[ann], rounds=TWO | {"most": 3})
        rows = read_rows(run.problems("sums"), Problem)
        problems |= {row.prompt: (n, row.gold or "") for n, row in enumerate(rows)}
        for _ in range(2):  # the second run goes on where one is left to go on
            run_stages(run.recipe, run.path, ASKING)
    return run


def test_what_was_refused_for_good_is_not_asked_again_and_it_is_said(tmp_path: Path) -> None:
    def behave(number: int, gold: str) -> tuple[int, str]:
        return (400, "content filter") if number < 3 else (200, gold)

    run = asked_of(tmp_path / "run", behave)
    (first,) = read_rounds(run, "sums")
    assert (first.stop, first.examples, first.next_refused) == ("refused", PROBLEMS - 3, 3)
    assert "3 problems of which every request was refused for good" in first.why
    rows = read_rows(attempts_file(run, "sums", 1), Attempt)
    assert sum(row.refused for row in rows) == 3


def test_a_round_whose_only_problems_are_refused_in_it_does_not_end_the_run(
    tmp_path: Path,
) -> None:
    seen: set[int] = set()

    def behave(number: int, gold: str) -> tuple[int, str]:
        if number in seen:
            return 400, "content filter"
        seen.add(number)
        return 200, "-1" if number < 2 else gold

    run = asked_of(tmp_path / "run", behave)
    _, second, *_ = read_rounds(run, "sums")
    assert (second.asked, second.requests, second.failed) == (2, 4, 4)
    assert second.next_refused == 0, "they were answered once"
