"""The client's benchmark still runs: a few requests, a short latency."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "client.py"


def test_the_client_benchmark_prints_a_row_a_client_and_no_request_fails() -> None:
    arguments = "--in-flight 4 --rounds 3 --latency 0.05 --clients cuvee,stream"
    command = [sys.executable, str(BENCHMARK), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, line, *rows = done.stdout.strip().splitlines()
    assert [row.split("|")[2:5] for row in rows[:2]] == [
        [f" {name} ", " 12 ", " 0 "] for name in ("cuvee", "stream")
    ]
    assert header.count("|") == line.count("|") == rows[0].count("|")


def test_a_client_that_is_not_known_is_named() -> None:
    command = [sys.executable, str(BENCHMARK), "--clients", "cuvee,curl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--clients: curl; known are cuvee" in done.stderr
