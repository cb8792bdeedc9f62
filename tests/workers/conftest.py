"""A Ray of two CPUs for the tests of a file, and the real outputs."""

import contextlib
import gzip
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real problems and outputs")
    return SHARED


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    if importlib.util.find_spec("ray") is None:  # not imported here: cuvee says how it listens
        pytest.skip("Ray is not installed: pip install 'cuvee[ray]'")
    from cuvee.workers.cluster import cluster

    with cluster(None, cpus=2):
        yield


@pytest.fixture
def outputs(data: Path) -> list[dict[str, Any]]:
    return list(_outputs(data))


def workers_of(process: int) -> list[int]:
    """Return the processes below one that work on a chunk for Ray."""
    found = []
    for child in children(process):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{child}/cmdline").read_bytes()
            if title.startswith(b"ray::_work"):
                found.append(child)
        found += workers_of(child)
    return found


def children(process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += [int(number) for number in (task / "children").read_text().split()]
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _outputs(data: Path) -> Iterator[dict[str, Any]]:
    """Yield rows of all published outputs that have a gold or tests beside them."""
    for row in lines(data / "outputs_gsm8k_openai_models" / "example_model_solutions.jsonl"):
        gold = row["ground_truth"].rpartition("A: ")[2]
        for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            reply = row[model]["solution"].replace("\nA: ", "\n#### ")
            yield {"gold": gold, "reply": reply}
    for row in lines(data / "outputs_qwen25math_rm_maj" / "math_cot_100.jsonl"):
        yield from ({"gold": row["gt"], "reply": reply} for reply in row["response"])
    for row in lines(data / "outputs_nemo_math" / "output-rs0.jsonl"):
        yield {"gold": row["expected_answer"], "reply": row["generation"]}
    for row in lines(data / "outputs_nemo_math" / "openmathinstruct2_100.jsonl"):
        yield {"gold": row["expected_answer"], "reply": row["generated_solution"]}
    for row in lines(data / "outputs_champ" / "champ_first_wrong_step.jsonl"):
        yield {"gold": str(row["answer"]), "reply": row["solution"]}
    for name in ("Claude", "llama2_70b"):
        file = data / "outputs_mr_gsm8k" / f"{name}_eval_results.json"
        for row in json.loads(file.read_text("utf-8")):
            reply = "\n".join(row["model_output_steps"])
            yield {"gold": str(row["ground_truth_answer"]), "reply": reply}
    yield from programs(data, of_problem=2)


def programs(data: Path, *, of_problem: int) -> Iterator[dict[str, Any]]:
    """Yield the first sampled programs of each problem of HumanEval beside its tests."""
    packed = (data / "humaneval" / "HumanEval.jsonl.gz").read_bytes()
    text = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
    problems = [json.loads(line) for line in text.decode("utf-8").splitlines()]
    by_name = {problem["entry_point"]: problem for problem in problems}
    path = data / "outputs_codet_humaneval" / "humaneval_codegen16B_100samples.jsonl"
    for row in lines(path):
        problem = by_name[re.findall(r"^def (\w+)\(", row["prompt"], re.MULTILINE)[-1]]
        code = f"{problem['test']}\ncheck({problem['entry_point']})\n"
        tests = json.dumps({"kind": "assert", "code": code})
        for sample in row["samples"][:of_problem]:
            yield {"tests": tests, "reply": f"```python\n{row['prompt']}{sample}\n```"}
