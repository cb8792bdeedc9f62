"""Scripted teachers over real HTTP: each style, each fault, and the protocol's edges."""

import dataclasses
import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import DataError, EngineError, RecipeError
from cuvee.models.engines import spawn
from cuvee.problems import functions, operations
from cuvee.problems.sources import Asked, load
from cuvee.recipe import Domain, Source, Teacher
from cuvee.records import Problem, write_rows
from cuvee.teach import scripted, scripted_answers
from cuvee.teach.scripted_answers import CONTENT_FAULTS, PIECE, count_pieces, cut, limit
from cuvee.verify.answers import code_block, final_answer, split_reasoning

STYLES = ("plain", "verbose", "terse")


def make(name: str, verifier: str, count: int) -> list[Problem]:
    source = Source(source=f"generator:{name}", count=count)
    domain = Domain.model_validate({"problems": [source], "verifier": verifier})
    return load(source, Asked(name, verifier, domain.ask), limit=None).problems


SUMS, FUNCTIONS = make("arithmetic", "math", 60), make("functions", "code", 60)
PROBLEMS = [*SUMS, *FUNCTIONS]


def script(**keys: Any) -> scripted.Script:
    given: dict[str, Any] = {
        "name": "alice",
        "style": "plain",
        "skill": 1.0,
        "content_faults": (),
        "http_faults": ("http_429", "http_500", "slow"),
        "http_share": 0.0,
        "seed": 0,
    }
    return scripted.Script(**{**given, **keys})


def faulty(fault: str, style: str = "plain") -> scripted.Script:
    return script(style=style, skill=0.0, content_faults=(fault,))


def text_of(reply: scripted_answers.Reply) -> tuple[str, str]:
    """Return (reasoning, answer) as a client reads them."""
    if reply.reasoning:
        return reply.reasoning, reply.content
    return split_reasoning(reply.content)


def is_right(problem: Problem, answer: str) -> bool:
    if problem.verifier == "math":
        return final_answer(answer) == problem.gold
    return (code_block(answer) or "").strip() == problem.gold


@pytest.mark.parametrize("style", STYLES)
def test_a_sound_reply_is_right_and_short(style: str) -> None:
    for problem in PROBLEMS:
        sent = scripted.answer(script(style=style), problem, 1, max_tokens=None)
        reasoning, answer = text_of(sent)
        assert sent.finish_reason == "stop"
        assert reasoning
        assert "<think>" not in reasoning + answer
        assert is_right(problem, answer)
        assert count_pieces(sent.reasoning + sent.content) <= 220


def test_the_styles_differ_in_where_the_reasoning_stands() -> None:
    plain, verbose, terse = (
        scripted.answer(script(style=style), SUMS[0], 1, max_tokens=None) for style in STYLES
    )
    assert plain.content.startswith("<think>\n")
    assert plain.content == f"<think>\n{terse.content}"
    assert "</think>" in terse.content
    assert verbose.reasoning
    assert "think>" not in verbose.content
    assert len(verbose.reasoning) > len(terse.content)


def test_arithmetic_is_worked_in_elementary_steps() -> None:
    for problem in SUMS:
        sent = scripted.answer(script(), problem, 1, max_tokens=None)
        reasoning, _ = text_of(sent)
        begin, *equations = reasoning.splitlines()
        assert begin == "Step by step:"
        for equation in equations:
            left, sign, right, _, result = equation.split()
            sums = {"+": int(left) + int(right), "-": int(left) - int(right)}
            assert sums[sign] == int(result)
            assert int(right) < 10 or int(right) % 10 == 0
        assert equations[-1].endswith(f"= {problem.gold}")


@pytest.mark.parametrize("style", STYLES)
def test_a_wrong_result_is_an_answer_and_really_wrong(style: str) -> None:
    for problem in SUMS:
        answer = text_of(
            scripted.answer(faulty("wrong_result", style), problem, 1, max_tokens=None)
        )[1]
        assert final_answer(answer) not in (None, problem.gold)
    for problem in FUNCTIONS:
        answer = text_of(
            scripted.answer(faulty("wrong_result", style), problem, 1, max_tokens=None)
        )[1]
        assert _fails(problem, code_block(answer) or "")


def _fails(problem: Problem, code: str) -> bool:
    """Run the wrong program (the teacher's own, made of our operations) on the cases."""
    scope: dict[str, Any] = {}
    exec(code, scope)  # noqa: S102 - composed of cuvee's own operations
    for case in json.loads(problem.tests or "")["cases"]:
        try:
            if scope["solve"](*case["args"]) != case["expected"]:
                return True
        except ValueError:
            return True
    return False


@pytest.mark.parametrize("style", STYLES)
def test_no_answer_states_none(style: str) -> None:
    for problem in PROBLEMS:
        sent = scripted.answer(faulty("no_answer", style), problem, 1, max_tokens=None)
        reasoning, answer = text_of(sent)
        assert sent.finish_reason == "stop"
        assert reasoning
        assert final_answer(answer) is None
        assert code_block(answer) is None


@pytest.mark.parametrize("style", STYLES)
def test_a_truncated_reply_ends_in_its_reasoning(style: str) -> None:
    for problem in PROBLEMS:
        sent = scripted.answer(faulty("truncated", style), problem, 1, max_tokens=None)
        assert sent.finish_reason == "length"
        assert "</think>" not in sent.content
        assert final_answer(sent.content) is None
        assert bool(sent.reasoning) is (style == "verbose")


@pytest.mark.parametrize("style", STYLES)
def test_the_second_language_and_repetition_are_in_the_reasoning_of_a_right_answer(
    style: str,
) -> None:
    for problem in PROBLEMS:
        reasoning, answer = text_of(
            scripted.answer(faulty("second_language", style), problem, 1, max_tokens=None)
        )
        letters = [c for c in reasoning if c.isalpha()]
        assert sum("一" <= c <= "鿿" for c in letters) > 0.15 * len(letters)
        assert is_right(problem, answer)
        reasoning, answer = text_of(
            scripted.answer(faulty("repetition", style), problem, 1, max_tokens=None)
        )
        words = reasoning.split()
        grams = [tuple(words[i : i + 8]) for i in range(len(words) - 7)]
        assert len(set(grams)) < 0.6 * len(grams)
        assert is_right(problem, answer)


def test_faults_come_at_their_shares_and_the_same_for_the_same_request() -> None:
    careless = script(skill=0.7, content_faults=CONTENT_FAULTS, http_share=0.2)
    asked = [(p, seed) for p in PROBLEMS for seed in range(20)]
    found = Counter(scripted.content_fault(careless, p, seed) for p, seed in asked)
    assert abs(found["none"] / len(asked) - 0.7) < 0.04
    for fault in CONTENT_FAULTS:
        assert abs(found[fault] / len(asked) - 0.06) < 0.025
    met = sum(scripted.http_fault(careless, p, seed) is not None for p, seed in asked)
    assert abs(met / len(asked) - 0.2) < 0.04
    once, again = (
        [scripted.answer(careless, p, s, max_tokens=None) for p, s in asked[:50]] for _ in range(2)
    )
    assert once == again
    other = script(skill=0.7, content_faults=CONTENT_FAULTS, seed=1)
    assert once != [scripted.answer(other, p, s, max_tokens=None) for p, s in asked[:50]]


def test_max_tokens_cuts_reasoning_first() -> None:
    assert cut("one, two three", 2) == "one,"
    assert cut("one two", 9) == "one two"
    assert PIECE.findall("solved! 你好") == ["solv", "ed", "!", "你好"]
    sent = scripted_answers.Reply("a b c", "d e", "stop")
    assert limit(sent, 5) is sent
    assert limit(sent, 4) == scripted_answers.Reply("a b c", "d", "length")
    assert limit(sent, 2) == scripted_answers.Reply("a b", "", "length")


def test_wrong_pipelines_cover_steps_constants_order_and_return() -> None:
    made = operations.Pipeline("list", (("add", 1), ("even", None)), ("sum", None))
    wrong = set(scripted_answers._wrong_pipelines(made))
    assert operations.without(made, 0) in wrong
    assert operations.Pipeline("list", (("even", None), ("add", 1)), ("sum", None)) in wrong
    assert operations.Pipeline("list", (("add", 2), ("even", None)), ("sum", None)) in wrong
    assert operations.Pipeline("list", (("add", 1), ("even", None)), ("largest", None)) in wrong
    assert functions.differs(operations.without(made, 0), [{"args": [[1]], "expected": 2}])


def test_the_configuration_is_checked() -> None:
    def teacher(**keys: Any) -> Teacher:
        return Teacher.model_validate({"name": "t", "scripted": keys})

    made = scripted.config(teacher(skill=0.5, faults=["truncated", "slow"]), [Path("p.parquet")])
    assert made["content_faults"] == ["truncated"]
    assert made["http_faults"] == ["slow"]
    assert Path(made["problems"][0]).is_absolute()
    assert scripted.config(teacher(), [])["http_faults"] == list(scripted.HTTP_FAULTS)
    with pytest.raises(RecipeError, match=r"skill 0.5 needs faults"):
        scripted.config(teacher(skill=0.5, faults=["slow"]), [])
    with pytest.raises(RecipeError, match="is not scripted"):
        scripted.config(Teacher(name="t", url="http://x/v1", model="m"), [])


def test_a_problem_no_generator_made_is_refused() -> None:
    foreign = Problem("1", "d", "file.jsonl", "q", "q", "math", "1", None, '{"a":1}')
    with pytest.raises(DataError, match=r"problem 1 of file.jsonl: scripted teachers answer"):
        scripted_answers.check_scriptable([foreign])


@dataclasses.dataclass(frozen=True)
class Client:
    """One running teacher, asked in the plainest way."""

    url: str

    def post(self, body: Any) -> tuple[int, dict[str, Any], Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/chat/completions", data)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.load(response), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers

    def ask(self, problem: Problem, seed: int = 0, **keys: Any) -> tuple[int, dict[str, Any], Any]:
        messages = [{"role": "user", "content": problem.prompt}]
        return self.post({"model": "alice", "messages": messages, "seed": seed, **keys})


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that starts a teacher's process for a `with` block."""
    folder = tmp_path_factory.mktemp("teacher")
    file = folder / "problems.parquet"
    write_rows(file, PROBLEMS, Problem)

    def run(name: str, **keys: Any) -> Any:
        teacher = Teacher.model_validate({"name": "alice", "scripted": keys})
        path = folder / f"{name}.json"
        path.write_text(json.dumps(scripted.config(teacher, [file])))
        command = [sys.executable, "-m", "cuvee.teach.scripted", str(path)]
        return spawn(command, name=name, folder=folder, seconds=30)

    return run


@pytest.fixture(scope="module", params=STYLES)
def served(request: pytest.FixtureRequest, start: Any) -> Iterator[tuple[str, Client]]:
    faults = [*CONTENT_FAULTS]
    with start(request.param, style=request.param, skill=0.4, faults=faults, http_faults=0) as url:
        yield request.param, Client(url)


def test_every_fault_of_every_style_arrives_over_http(served: tuple[str, Client]) -> None:
    style, client = served
    known = script(style=style, skill=0.4, content_faults=CONTENT_FAULTS)
    seen: Counter[str] = Counter()
    for problem in PROBLEMS[::2]:
        status, body, _ = client.ask(problem, 3)
        assert status == 200
        expected = scripted.answer(known, problem, 3, max_tokens=None)
        (choice,) = body["choices"]
        assert choice["message"]["content"] == expected.content
        assert choice["message"].get("reasoning_content", "") == expected.reasoning
        assert choice["finish_reason"] == expected.finish_reason
        assert body["model"] == "alice"
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        seen[body["system_fingerprint"]] += 1
    assert set(seen) == {f"scripted/{fault}" for fault in ("none", *CONTENT_FAULTS)}


def test_the_protocol_is_kept_and_misuse_is_explained(served: tuple[str, Client]) -> None:
    _, client = served
    with urllib.request.urlopen(f"{client.url}/models", timeout=20) as response:
        assert json.load(response)["data"][0]["id"] == "alice"
    status, body, _ = client.ask(SUMS[1], 3, max_tokens=5)
    assert (status, body["choices"][0]["finish_reason"]) == (200, "length")
    assert body["usage"]["completion_tokens"] <= 5
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": SUMS[0].prompt}
    assert client.post({"messages": [system, user]})[0] == 200
    for wrong, message in [
        (b"{", "not JSON"),
        ({"prompt": "x"}, "list of messages"),
        ({"messages": [system]}, "user message"),
        ({"messages": [user], "stream": True}, "not offered"),
        ({"messages": [user], "n": 2}, "not offered"),
        ({"messages": [user], "max_tokens": 0}, "whole numbers"),
        ({"messages": [{"role": "user", "content": "Who?"}]}, "no problem has this user message"),
    ]:
        status, body, _ = client.post(wrong)
        assert status == 400
        assert message in body["error"]["message"]


@pytest.fixture(scope="module")
def shaky(start: Any) -> Iterator[Client]:
    """A teacher whose requests meet a fault of HTTP in half of the cases."""
    with start("shaky", http_faults=0.5) as url:
        yield Client(url)


@pytest.mark.parametrize("fault", [None, *scripted.HTTP_FAULTS])
def test_a_fault_of_http_meets_the_first_try_alone(shaky: Client, fault: str | None) -> None:
    known = script(http_share=0.5)
    problem = next(p for p in PROBLEMS if scripted.http_fault(known, p, 0) == fault)
    begin = time.monotonic()
    status, body, headers = shaky.ask(problem)
    seconds = time.monotonic() - begin
    if fault in (None, "slow"):
        assert status == 200
        assert fault is None or seconds >= scripted.SLOW_SECONDS
    else:
        assert f"http_{status}" == fault
        assert "try again" in body["error"]["message"]
        assert headers.get("Retry-After") == ("1" if fault == "http_429" else None)
    status, body, _ = shaky.ask(problem)
    assert (status, body["system_fingerprint"]) == (200, "scripted/none")


def test_a_teacher_that_cannot_start_says_why(tmp_path: Path) -> None:
    file, config = tmp_path / "p.parquet", tmp_path / "c.json"
    write_rows(file, [Problem("1", "d", "f.csv", "q", "q", "math", "1", None, "{}")], Problem)
    teacher = Teacher.model_validate({"name": "t", "scripted": {}})
    config.write_text(json.dumps(scripted.config(teacher, [file])))
    command = [sys.executable, "-m", "cuvee.teach.scripted", str(config)]
    with (
        pytest.raises(EngineError, match="scripted teachers answer"),
        spawn(command, name="t", folder=tmp_path, seconds=30),
    ):
        pass
