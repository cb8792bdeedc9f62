"""What is gathered from a run folder: everything counted once, and the counts add up."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.lineage.preflight import read_preflight
from cuvee.merge.config.read import parse_config
from cuvee.merge.stream import merge
from cuvee.models.random_model import write_random_model
from cuvee.records import Example, read_rows, write_rows
from cuvee.release.facts import Facts
from cuvee.release.gather import gather
from cuvee.release.logs import read_adopted, read_held_out, read_train_log
from cuvee.runfolder import Run


def test_every_trace_is_an_example_or_dropped(facts: Facts) -> None:
    for funnel in facts.funnels:
        assert funnel.loaded == 15
        assert funnel.problems == 12
        assert funnel.problems_dropped == {"near_duplicate": 2, "overlaps_benchmark": 1}
        assert funnel.traces == funnel.judged == sum(funnel.finish.values()) == 36
        assert funnel.examples + sum(funnel.dropped.values()) == funnel.traces
        assert funnel.unaccounted == 0
        assert funnel.untrained == 1
    math, code = facts.funnels
    assert (math.held_out, code.held_out) == (1, 0)
    assert math.trained == math.examples - 2
    assert code.trained == code.examples - 1


def test_a_trace_that_vanished_is_counted_as_unaccounted(finished: Run) -> None:
    file = finished.examples("math")
    write_rows(file, read_rows(file, Example)[:-2], Example)
    assert gather(finished).funnels[0].unaccounted == 2


def test_verdicts_are_counted_by_reason(facts: Facts) -> None:
    verdicts = facts.funnels[0].verdicts
    assert verdicts["wrong"] == {"different": 2}
    assert verdicts["no_answer"] == {"no_final_answer": 2, "truncated": 2}
    assert verdicts["not_checked"] == {"request_failed": 1}


def test_known_faults_are_followed_to_training(facts: Facts) -> None:
    by_fault = {fault.fault: fault for fault in facts.faults}
    wrong = by_fault["wrong_result"]
    assert (wrong.made, wrong.correct, wrong.dropped, wrong.trained) == (4, 0, 4, 0)
    assert facts.wrong_trained == 0
    sound = facts.faults[-1]
    assert sound.fault == "none"
    examples = sum(funnel.examples for funnel in facts.funnels)
    assert sound.trained == examples - 3  # one of each domain is too long, one is held out
    assert sum(fault.made for fault in facts.faults) == 2 * 36 - 2  # failed requests say nothing


def test_a_wrong_result_that_slips_through_is_seen(finished: Run) -> None:
    file = finished.examples("math")
    examples = read_rows(file, Example)
    slipped = Example("math-p1-bob", "math-p1", "math", "bob", "p", "r", "a", 9)
    write_rows(file, [*examples, slipped], Example)
    assert gather(finished).wrong_trained == 1


def test_teachers_are_judged_over_what_was_checked(facts: Facts) -> None:
    alice, bob, carol = facts.teachers
    assert (alice.traces, alice.failed, alice.checked, alice.correct) == (24, 0, 24, 24)
    assert (bob.truncated, bob.checked, bob.correct) == (4, 24, 12)
    assert (carol.failed, carol.checked, carol.correct) == (2, 22, 22)
    assert sum(t.examples for t in facts.teachers) == sum(f.examples for f in facts.funnels)
    assert carol.tokens_unknown == 0  # a failed request has no tokens to count


def test_samples_are_one_of_each_fate_and_the_same_each_time(finished: Run, facts: Facts) -> None:
    for domain in ("math", "code"):
        own = [s for s in facts.samples if s.trace.domain == domain]
        reasons = [s.dropped for s in own if s.dropped is not None]
        funnel = next(f for f in facts.funnels if f.domain == domain)
        assert sorted(reasons) == sorted(funnel.dropped)
        assert own[0].dropped is None
        assert all(s.prompt and s.verdict for s in own)
    assert gather(finished).samples == facts.samples


def test_tasks_stand_in_the_order_of_the_stages(facts: Facts) -> None:
    stages = list(dict.fromkeys(task.stage for task in facts.tasks))
    assert stages == ["problems", "teach", "verify", "select", "train", "merge", "evaluate"]
    assert facts.versions["cuvee"]


def test_a_missing_file_is_named(finished: Run) -> None:
    finished.verdicts("code").unlink()
    with pytest.raises(DataError, match=r"03_verdicts/code\.parquet"):
        gather(finished)


def test_a_step_done_twice_counts_as_it_was_last(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    lines = [(1, 2.0), (2, 1.5), (2, 1.4), (3, 1.2)]
    text = [json.dumps({"step": s, "loss": loss, "tokens": s, "seconds": 0.5}) for s, loss in lines]
    file.write_text("\n".join(text) + "\n")
    assert [(p.step, p.loss) for p in read_train_log(file)] == [(1, 2.0), (2, 1.4), (3, 1.2)]


@pytest.mark.parametrize("line", ["{", "[]", '{"step": 1}', '{"step": "x", "loss": 1}', "\x00"])
def test_a_broken_line_of_a_log_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=r"log\.jsonl:1: "):
        read_train_log(file)
    if "step" not in line or "x" in line:
        with pytest.raises(DataError, match=r"log\.jsonl:1: .*expected step and loss"):
            read_held_out(file)


def test_every_trained_model_tells_of_its_training(facts: Facts) -> None:
    assert list(facts.training) == ["math", "code", "mixture"]
    math, code, mixture = facts.training.values()
    assert [point.step for point in math.held_out] == list(range(0, 61, 6))
    assert len(mixture.log) == 60
    assert math.preflight.warnings is not None
    assert [w.message for w in math.preflight.warnings] == [
        "the same <b>row</b> twice",
        "weights in bf16",
    ]
    assert mixture.preflight.warnings == ()
    assert (math.has_page, code.has_page, mixture.has_page) == (True, False, True)


def test_what_the_first_version_trained_has_no_held_out_loss_and_unknown_warnings(
    facts: Facts,
) -> None:
    old = facts.training["code"]
    assert (old.held_out, old.preflight.held_out, old.preflight.warnings) == ((), frozenset(), None)
    assert old.preflight.too_long == {"code-p3-alice"}


@given(st.binary(max_size=60))
def test_any_bytes_as_statistics_are_refused_by_name(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "statistics.json"
        file.write_bytes(content)
        for read in (read_adopted, read_preflight):
            with pytest.raises(DataError, match=r"statistics\.json"):
                read(file)


def test_the_statistics_of_a_real_merge_are_read(tmp_path: Path) -> None:
    for seed, name in enumerate(("math", "code")):
        write_random_model(tmp_path / name, seed=seed)
    config = {
        "method": "arcee_fusion",
        "models": [str(tmp_path / "math"), str(tmp_path / "code")],
        "out_dtype": "float32",
    }
    merged = merge(parse_config(config, where="test"), tmp_path / "merged", threads=1)
    cells = read_adopted(tmp_path / "merged" / "cuvee_merge.json")
    assert len(cells) == merged.tensors
    assert {cell.fusion for cell in cells} == {"math into code"}
    assert {cell.layer for cell in cells} == {0, 1, None}
    total = sum(cell.elements for cell in cells)
    share = sum(cell.share * cell.elements for cell in cells) / total
    assert share == pytest.approx(merged.share_adopted)
