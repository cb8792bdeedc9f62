"""The conformance suite: it is well formed, its probes notice, its grades are fair, ours agrees."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from cuvee.errors import RecipeError
from cuvee.verify.conformance.cases import Case, Item, expand, load
from cuvee.verify.conformance.outside import baited
from cuvee.verify.conformance.run import GOOD, Result, grade, run
from cuvee.verify.conformance.table import as_json, render
from cuvee.verify.conformance.verifiers import Said, named

VERDICTS = {"correct", "wrong", "no_answer", "not_checked"}


def quiet(_: int) -> None:
    pass


def bad(results: Sequence[Result]) -> str:
    failed = [result for result in results if result.grade not in GOOD]
    return render(failed) if failed else ""


def ask_ours(cases: Sequence[Case]) -> str:
    return bad(run(cases, named("ours", sandbox="bubblewrap"), tick=quiet))


def test_the_suite_is_as_large_as_it_says() -> None:
    cases = load()
    assert sum(case.part == "math" for case in cases) >= 500
    io = Counter(case.verdicts for case in cases if case.part == "io")
    assert io["correct",] >= 60
    assert io["wrong",] >= 60
    kinds = Counter(case.kind for case in cases if case.part == "hostile")
    assert kinds["escape"] >= 50
    assert kinds["forge"] >= 30


def test_every_case_says_a_known_verdict() -> None:
    assert {verdict for case in load() for verdict in case.verdicts} <= VERDICTS


def test_no_gold_and_reply_stand_there_twice() -> None:
    math = [case for case in load() if case.part == "math"]
    items = Counter(json.dumps(dict(case.item), sort_keys=True) for case in math)
    assert [item for item, times in items.items() if times > 1] == []


def test_half_of_the_math_cases_are_false_friends_or_poison() -> None:
    math = [case for case in load() if case.part == "math"]
    assert sum(case.verdicts != ("correct",) for case in math) > 0.35 * len(math)


def test_abbreviations_are_written_out() -> None:
    assert expand("<<ab*3>>") == "ababab"
    assert expand(r"<<\boxed{*2>>4<<}*2>>") == r"\boxed{\boxed{4}}"
    assert expand("<<U+D800>>") == "\ud800"


@pytest.mark.parametrize("kind", ["math", "choice"])
def test_ours_agrees_on_math(kind: str) -> None:
    cases = [c for c in load() if c.item["verifier"] == kind and c.kind != "poison"]
    assert ask_ours(cases) == ""


@pytest.mark.slow
def test_ours_agrees_on_poison() -> None:
    assert ask_ours([case for case in load() if case.kind == "poison"]) == ""


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow), 9], ids=["all", "every-ninth"]
)
@pytest.mark.parametrize("part", ["io", "hostile"])
def test_ours_agrees_on_programs_and_contains_hostile_ones(part: str, step: int) -> None:
    assert ask_ours([case for case in load() if case.part == part][::step]) == ""


def test_the_bait_notices_what_is_done_to_it() -> None:
    with baited() as outside:
        assert outside.reached() == []
        socket.create_connection(("127.0.0.1", outside.port)).close()
        assert outside.reached() == ["connected to a socket"]
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(b"x", ("127.0.0.1", outside.port))
        assert outside.reached() == ["sent a datagram"]
        (outside.folder / "written").touch()
        assert outside.reached() == ["changed the user's files"]
        (outside.folder / "secret").unlink()
        assert outside.reached() == ["changed the user's files"]
        assert outside.reached() == []


def test_the_bystander_tells_of_a_signal() -> None:
    with baited() as outside:
        os.kill(outside.bystander.pid, signal.SIGURG)
        found: list[str] = []
        for _ in range(100):
            found += outside.reached()
            if found:
                break
            signal.sigtimedwait([], 0.05)
        assert found == ["signalled another process"]


def test_a_surviving_process_is_found_and_ended() -> None:
    with baited() as outside:
        code = f"import time; time.sleep(60)  # {outside.mark}"
        with subprocess.Popen([sys.executable, "-c", code]) as survivor:
            assert outside.reached() == ["1 processes survived"]
            assert survivor.wait(10) == -signal.SIGKILL


def case(verdicts: Sequence[str], reason: str | None = None) -> Case:
    item: Item = {"verifier": "math", "gold": "1", "reply": "", "finish_reason": "stop"}
    return Case("math/k/c", "math", "k", item, tuple(verdicts), reason, None)


@pytest.mark.parametrize(
    ("wanted", "said", "expected"),
    [
        (case(["correct"]), Said("correct"), "agrees"),
        (case(["correct"]), Said("wrong"), "false_wrong"),
        (case(["wrong"]), Said("correct"), "false_correct"),
        (case(["wrong", "not_checked"]), Said("not_checked"), "agrees"),
        (case(["wrong"]), Said("not_checked", "hung"), "not_checked"),
        (case(["no_answer"]), Said("wrong"), "agrees"),  # it has no other word
        (case(["no_answer"]), Said("wrong", "different"), "other_reason"),
        (case(["not_checked"]), Said("wrong"), "false_wrong"),  # a time-out taken for wrong
        (case(["correct"], "equal"), Said("correct", "luck"), "other_reason"),
        (case(["correct"]), Said("unsupported"), "unsupported"),
    ],
)
def test_grades(wanted: Case, said: Said, expected: str) -> None:
    assert grade(wanted, said) == expected


GRADER = """
def grade(item):
    if item["verifier"] == "code":
        return "unsupported"
    return None if item["gold"] is None else item["gold"] in item["reply"]
"""


def test_runs_against_any_function_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GRADER)
    cases = [c for c in load() if c.id.startswith(("math/numbers/", "math/golds/null", "io/stdin"))]
    results = run(cases, named(f"{tmp_path}/mine.py:grade", sandbox="bubblewrap"), tick=quiet)
    by_id = {result.case.id: result.grade for result in results}
    assert by_id["math/numbers/same-integer"] == "agrees"
    assert by_id["math/numbers/gold-is-prefix"] == "false_correct"
    assert by_id["math/numbers/leading-zeros-in-gold"] == "false_wrong"
    assert by_id["math/golds/null"] == "agrees"
    assert by_id["io/stdin/input"] == "unsupported"
    assert as_json(results, verifier="mine")["counts"]["unsupported"] == 72


def test_a_grader_that_calls_everything_correct_is_found_out() -> None:
    def lenient(items: Sequence[Item]) -> list[Said]:
        return [Said("correct") for _ in items]

    results = run([c for c in load() if c.part == "io"], lenient, tick=quiet)
    wrong = sum("wrong" in result.case.verdicts for result in results)
    assert Counter(result.grade for result in results)["false_correct"] == wrong


def test_an_unknown_verifier_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="must be ours, math-verify"):
        named("mathverify", sandbox="bubblewrap")
