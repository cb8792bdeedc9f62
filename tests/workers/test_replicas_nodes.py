"""What a replica takes of a node, what stands against a node, what is refused: without Ray."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cuvee.errors import CuveeError, RecipeError
from cuvee.models.door import shares, visible
from cuvee.models.vllm import vllm_command
from cuvee.recipe import Recipe, Serve, parse_recipe
from cuvee.workers.balancer import job_of, needs_of, require_room
from cuvee.workers.node_engine import faults

LLAMA = Serve(over="ray", threads=4, replicas=3)
PARALLEL = {"tensor_parallel_size": 4, "pipeline-parallel-size": 2}


def recipe(**more: Any) -> Recipe:
    over = {"over": "ray", "threads": 2, "replicas": 2}
    plain = {
        "name": "a",
        "base": "random:two-layer",
        "domains": {"math": {"problems": [{"source": "a.jsonl"}], "verifier": "math"}},
        "teachers": [{"name": "t", "model": "m.gguf", "serve": over}],
    }
    return parse_recipe({**plain, **more}, where="-")


def node(address: str, *, cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    return {"Alive": alive, "NodeManagerAddress": address, "Resources": resources}


def test_a_replica_takes_its_threads_and_gpus_of_one_node() -> None:
    assert needs_of(LLAMA) == {"CPU": 4, "GPU": 0}
    assert needs_of(Serve(over="ray", threads=1, gpus=2)) == {"CPU": 1, "GPU": 2}
    assert needs_of(Serve(engine="vllm", over="ray")) == {"CPU": 1, "GPU": 1}
    assert needs_of(Serve(engine="vllm", over="ray", args=PARALLEL)) == {"CPU": 8, "GPU": 8}


def test_room_is_counted_node_by_node_and_the_lack_of_it_says_what_there_is() -> None:
    nodes = [node("10.0.0.1", cpus=7), node("10.0.0.2", cpus=8)]
    require_room(nodes, LLAMA)  # 1 + 2, although 15 / 4 were 3 as well
    gone = [nodes[0], node("10.0.0.2", cpus=8, alive=False)]
    with pytest.raises(CuveeError, match=r"3 replicas of 4 CPUs and 0 GPUs each.*room for 1: 10"):
        require_room(gone, LLAMA)
    both = Serve(engine="vllm", over="ray", args=PARALLEL)
    with pytest.raises(CuveeError, match=r"room for 0: a: 64 CPUs and 4 GPUs; b: 64 CPUs and 4"):
        require_room([node("a", cpus=64, gpus=4), node("b", cpus=64, gpus=4)], both)


def test_a_node_without_the_model_or_with_another_one_says_so(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF one")
    job = job_of(LLAMA, str(file), name="m")
    assert (job.serve.replicas, job.serve.over) == (1, None)
    assert job.version == version("xllamacpp")
    assert faults(job) == []
    file.write_bytes(b"GGUF two")
    (found,) = faults(job)
    assert found.startswith(f"its {file} is another one: ")
    assert job.identity is not None
    assert job.identity in found
    file.unlink()
    assert faults(job) == [f"it has no {file}"]


def test_a_node_with_another_engine_says_so(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho 0.33.0\n")
    program.chmod(0o755)
    job = job_of(Serve(engine="vllm", command=str(program), over="ray"), "owner/name", name="m")
    assert job.identity is None  # the engine loads a hub id by itself
    assert faults(job) == []
    program.write_text("#!/bin/sh\necho 0.34.0\n")
    assert faults(job) == ["vllm is 0.34.0, here 0.33.0"]
    program.unlink()
    (found,) = faults(job)
    assert "is no program that can be run" in found


def test_a_node_s_vllm_listens_on_the_node_s_address_alone_and_is_one_copy(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho 0.33.0\n")
    program.chmod(0o755)
    spec = Serve(engine="vllm", command=str(program), over="ray", replicas=4, args=PARALLEL)
    job = job_of(spec, "owner/name", name="m")
    assert vllm_command(job.serve, job.model, 8123, host="10.0.0.2") == [
        *(str(program), "serve", "owner/name", "--host", "10.0.0.2", "--port", "8123"),
        *("--max-num-seqs", "16", "--max-model-len", "2048"),
        *("--tensor-parallel-size", "4", "--pipeline-parallel-size", "2"),
    ]


def test_devices_are_shared_out_in_order() -> None:
    assert shares([4, 5, 6, 7], 2) == [[4, 5], [6, 7]]
    assert shares([], 2) == [[], []]
    assert visible([6, 7]) == {"CUDA_VISIBLE_DEVICES": "6,7"}
    assert visible(["3"]) == {"CUDA_VISIBLE_DEVICES": "3"}
    assert visible([]) == {}


def test_the_recipe_s_address_is_that_of_its_replicas_unless_they_have_one() -> None:
    def address_of(found: Recipe) -> str | None:
        (teacher,) = found.teachers
        assert teacher.serve is not None
        return teacher.serve.address

    assert address_of(recipe()) is None
    found = recipe(address="10.0.0.1:6379")  # with workers: pool
    assert address_of(found) == "10.0.0.1:6379"
    assert parse_recipe(found.model_dump(mode="json"), where="again") == found
    evaluate = {"serve": {"over": "ray", "threads": 1, "address": "auto"}}
    assert recipe(address="h:1", evaluate=evaluate).evaluate.serve.address == "auto"


def test_a_section_without_the_new_keys_is_written_as_before() -> None:
    assert not {"over", "address", "gpus"} & set(Serve(replicas=2).model_dump())


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ({"over": "ray"}, "over: ray needs threads"),
        ({"over": "ray", "threads": 1, "devices": [0]}, "not with over: ray, which chooses the GP"),
        ({"over": "ray", "threads": 1, "address": "ray://h:1"}, "is not supported"),
        ({"gpus": 1}, "gpus: only with over: ray"),
        ({"address": "auto"}, "address: only with over: ray"),
        ({"engine": "vllm", "over": "ray", "gpus": 1}, "gpus is for engine llama.cpp alone"),
        ({"devices": [0, 1, 2], "replicas": 2}, "[0, 1, 2] cannot be shared out so"),
        ({"devices": [0], "replicas": 2}, "[0] cannot be shared out so"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(serve: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(evaluate={"serve": serve})
    assert said in str(error.value)
