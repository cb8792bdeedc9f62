"""The merge benchmark still runs: on a tiny model, and without what it would be compared with."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "merge.py"


def test_the_merge_benchmark_prints_a_table_and_leaves_nothing_but_its_checkpoints(
    tmp_path: Path,
) -> None:
    folder, numbers = tmp_path / "files", tmp_path / "numbers.json"
    arguments = "--shapes tiny --layers 1 --repeat 1 --methods ties --tools cuvee,floor --compiled"
    command = [sys.executable, str(BENCHMARK), *arguments.split(), "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--json", str(numbers)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    header, line, cuvee, floor, *_ = done.stdout.splitlines()
    assert header.count("|") == line.count("|") == cuvee.count("|") == floor.count("|")
    assert cuvee.startswith("| ties | cuvee |")
    assert "Compile time is not counted" in done.stdout
    runs = json.loads(numbers.read_text())["runs"]["ties"]
    assert {tool: len(found) for tool, found in runs.items()} == {
        "first": 1,
        "cuvee": 1,
        "floor": 1,
    }
    assert all(run["seconds"] > 0 and run["peak_bytes"] > 0 for run in (*runs["cuvee"],))
    [made] = folder.iterdir()
    assert sorted(path.name for path in made.iterdir()) == ["a", "b", "c"]


def test_a_method_that_is_not_measured_is_named() -> None:
    command = [sys.executable, str(BENCHMARK), "--methods", "ties,magic"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--methods: magic; known are arcee_fusion" in done.stderr
