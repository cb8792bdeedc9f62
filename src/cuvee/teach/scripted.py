"""Scripted teachers: a loopback server that answers generated problems by rule.

``python -m cuvee.teach.scripted CONFIG.json`` serves the OpenAI chat protocol (``POST
/v1/chat/completions``, not streamed; ``GET /v1/models``) on a free port of 127.0.0.1 and
prints ``{"url": ...}`` when it is ready. The problem is found by the exact last user
message; a message of `cuvee.verify.judge` or `judge_rubric` is answered as a judge, one of
`cuvee.select.refine.asked` as a refiner. The reply depends
on the teacher's seed, the problem and the request's seed alone.
Each reply states its fault in `system_fingerprint`: `scripted/none`, `scripted/wrong_result`.
Faults of HTTP (429, 500, slow) meet the first try of a request; the next one is answered,
and as they do not touch the answer, its fingerprint does not name them.
Tokens are counted by a rule of its own (`cuvee.teach.scripted_answers.PIECE`).
"""

import asyncio
import dataclasses
import json
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from cuvee.errors import CuveeError, DataError, RecipeError
from cuvee.recipe import Teacher
from cuvee.records import Problem, content_hash, read_rows
from cuvee.teach import scripted_answers, scripted_judge, scripted_refiner, scripted_rubric
from cuvee.teach.scripted_answers import CONTENT_FAULTS, Reply, Style

HTTP_FAULTS = ("http_429", "http_500", "slow")
SLOW_SECONDS = 0.3
RETRY_AFTER_SECONDS = 1
"""The header holds whole seconds."""

Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclasses.dataclass(frozen=True)
class Script:
    """How one scripted teacher behaves."""

    name: str
    style: Style
    skill: float
    """Share of requests without a fault of content, in [0, 1]."""
    content_faults: tuple[str, ...]
    http_faults: tuple[str, ...]
    http_share: float
    """Share of requests whose first try meets a fault of HTTP, in [0, 0.5]."""
    seed: int


def config(teacher: Teacher, problem_files: Sequence[Path]) -> dict[str, Any]:
    """Return the JSON configuration of a scripted teacher's process.

    Faults of HTTP are those that `faults` names, or all three where it names none.
    Raises RecipeError for a teacher that is not scripted, and for a skill under 1 without
    a fault of content to make.
    """
    scripted = teacher.scripted
    if scripted is None:
        raise RecipeError(f"teacher {teacher.name}: is not scripted")
    content = [fault for fault in scripted.faults if fault in CONTENT_FAULTS]
    http = [fault for fault in scripted.faults if fault in HTTP_FAULTS]
    if scripted.skill < 1 and not content:
        raise RecipeError(
            f"teacher {teacher.name}: skill {scripted.skill} needs faults to make; name some "
            f"of {', '.join(CONTENT_FAULTS)} in scripted.faults"
        )
    return {
        "name": teacher.name,
        "style": scripted.style,
        "skill": scripted.skill,
        "content_faults": content,
        "http_faults": http or list(HTTP_FAULTS),
        "http_share": scripted.http_faults,
        "seed": scripted.seed,
        "problems": [str(path.absolute()) for path in problem_files],
    }


def content_fault(script: Script, problem: Problem, seed: int) -> str:
    """Return the fault of content that a request meets, or `none`."""
    rng = _rng(script, problem, seed, "fault")
    if not script.content_faults or rng.random() < script.skill:
        return "none"
    return rng.choice(script.content_faults)


def http_fault(script: Script, problem: Problem, seed: int) -> str | None:
    """Return the fault of HTTP that the first try of a request meets, or None."""
    rng = _rng(script, problem, seed, "http")
    return rng.choice(script.http_faults) if rng.random() < script.http_share else None


def answer(script: Script, problem: Problem, seed: int, *, max_tokens: int | None) -> Reply:
    """Return the reply to a request, cut at `max_tokens` where it is longer."""
    fault = content_fault(script, problem, seed)
    rng = _rng(script, problem, seed, "answer")
    sent = scripted_answers.reply(problem, style=script.style, fault=fault, rng=rng)
    return sent if max_tokens is None else scripted_answers.limit(sent, max_tokens)


def _rng(script: Script, problem: Problem, seed: int, purpose: str) -> random.Random:
    return random.Random(content_hash(script.seed, problem.id, seed, purpose))


def application(script: Script, problems: Sequence[Problem]) -> web.Application:
    """Return the server of a teacher for these problems.

    Raises DataError for a problem it cannot answer.
    """
    scripted_answers.check_scriptable(problems)
    by_prompt = {problem.prompt: problem for problem in problems}
    app = web.Application()
    app.router.add_get("/v1/models", _models(script))
    app.router.add_post("/v1/chat/completions", _chat(script, by_prompt))
    return app


def _models(script: Script) -> Handler:
    async def models(_: web.Request) -> web.Response:
        model = {"id": script.name, "object": "model", "created": 0, "owned_by": "scripted"}
        return web.json_response({"object": "list", "data": [model]})

    return models


def _chat(script: Script, by_prompt: Mapping[str, Problem]) -> Handler:
    met: set[tuple[str, int]] = set()  # requests that had their fault of HTTP

    async def chat(request: web.Request) -> web.Response:
        try:
            prompt, seed, max_tokens = _read(await request.text())
        except DataError as error:
            return _error(400, str(error))
        problem = by_prompt.get(prompt)
        right = scripted_judge.judged(prompt) if problem is None else None
        if right is not None:
            return web.json_response(_decision(script, prompt, seed, right=right))
        graded = scripted_rubric.graded(prompt) if problem is None else None
        if graded is not None:
            return web.json_response(_grading(script, prompt, seed, graded))
        reasoning = scripted_refiner.reasoning_of(prompt) if problem is None else None
        if reasoning is not None:
            return web.json_response(_refinement(script, prompt, seed, reasoning))
        if problem is None:
            return _error(400, f"no problem has this user message: {prompt[:200]!r}")
        fault = http_fault(script, problem, seed)
        if fault is not None and (problem.id, seed) not in met:
            met.add((problem.id, seed))
            if fault != "slow":
                return _failure(fault)
            await asyncio.sleep(SLOW_SECONDS)
        sent = answer(script, problem, seed, max_tokens=max_tokens)
        made = content_fault(script, problem, seed)
        return web.json_response(_completion(script, prompt, seed, sent, fault=made))

    return chat


def _read(body: str) -> tuple[str, int, int | None]:
    """Return the last user message, the seed and `max_tokens` of a request.

    Raises DataError for what this server does not do.
    """
    try:
        asked = json.loads(body)
    except json.JSONDecodeError as error:
        raise DataError(f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
        raise DataError("the body must be an object with a list of messages")
    if asked.get("stream") or asked.get("n", 1) != 1:
        raise DataError("stream and n > 1 are not offered here")
    users = [m for m in asked["messages"] if isinstance(m, dict) and m.get("role") == "user"]
    if not users or not isinstance(users[-1].get("content"), str):
        raise DataError("messages must hold a user message with text")
    most = asked.get("max_completion_tokens", asked.get("max_tokens"))
    seed = asked.get("seed", 0)
    if type(seed) is not int or not (most is None or (type(most) is int and most > 0)):
        raise DataError(f"seed and max_tokens must be whole numbers, got {seed!r} and {most!r}")
    return users[-1]["content"], seed, most


def _decision(script: Script, prompt: str, seed: int, *, right: bool) -> dict[str, Any]:
    """Return the completion of a judge; faults of HTTP are not made here."""
    rng = random.Random(content_hash(script.seed, prompt, seed, "judge"))
    known = [fault for fault in script.content_faults if fault in scripted_judge.FAULTS]
    fault = "none" if not known or rng.random() < script.skill else rng.choice(known)
    sent = scripted_judge.reply(right=right, fault=fault)
    return _completion(script, prompt, seed, sent, fault=fault)


def _grading(script: Script, prompt: str, seed: int, graded: tuple[bool, int]) -> dict[str, Any]:
    """Return the completion of a judge with a rubric; faults of HTTP are not made here."""
    rng = random.Random(content_hash(script.seed, prompt, seed, "rubric"))
    known = [fault for fault in script.content_faults if fault in scripted_rubric.FAULTS]
    fault = "none" if not known or rng.random() < script.skill else rng.choice(known)
    sound, points = graded
    sent = scripted_rubric.reply(sound=sound, points=points, fault=fault)
    return _completion(script, prompt, seed, sent, fault=fault)


def _refinement(script: Script, prompt: str, seed: int, reasoning: str) -> dict[str, Any]:
    """Return the completion of a refiner; faults of HTTP are not made here."""
    rng = random.Random(content_hash(script.seed, prompt, seed, "refine"))
    known = [fault for fault in script.content_faults if fault in scripted_refiner.FAULTS]
    fault = "none" if not known or rng.random() < script.skill else rng.choice(known)
    sent = scripted_refiner.reply(reasoning, fault=fault)
    return _completion(script, prompt, seed, sent, fault=fault)


def _completion(
    script: Script, prompt: str, seed: int, sent: Reply, *, fault: str
) -> dict[str, Any]:
    message = {"role": "assistant", "content": sent.content}
    if sent.reasoning:
        message["reasoning_content"] = sent.reasoning
    prompt_tokens = scripted_answers.count_pieces(prompt)
    tokens = scripted_answers.count_pieces(sent.reasoning + "\n" + sent.content)
    return {
        "id": f"chatcmpl-{content_hash(script.name, prompt, seed)}",
        "object": "chat.completion",
        "created": 0,
        "model": script.name,
        "system_fingerprint": f"scripted/{fault}",
        "choices": [{"index": 0, "message": message, "finish_reason": sent.finish_reason}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": prompt_tokens + tokens,
        },
    }


def _failure(fault: str) -> web.Response:
    if fault == "http_429":
        after = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return _error(429, "rate limit (scripted); try again", headers=after)
    return _error(500, "internal error (scripted); try again")


def _error(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "type": "scripted", "code": status}}
    return web.json_response(body, status=status, headers=headers)


async def serve(app: web.Application) -> None:
    """Serve on a free loopback port, print its URL, and end on SIGTERM or SIGINT."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        print(json.dumps({"url": f"http://127.0.0.1:{port}/v1"}), flush=True)
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await ended.wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str]) -> int:
    """Run the server of a configuration file; return the exit code."""
    try:
        given = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        paths = [Path(path) for path in given.pop("problems")]
        problems = [problem for path in paths for problem in read_rows(path, Problem)]
        given["content_faults"] = tuple(given["content_faults"])
        given["http_faults"] = tuple(given["http_faults"])
        app = application(Script(**given), problems)
    except (OSError, CuveeError) as error:
        print(f"scripted teacher: {error}", file=sys.stderr)
        return 1
    asyncio.run(serve(app))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
