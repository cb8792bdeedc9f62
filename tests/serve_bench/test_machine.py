"""Memory, copying and weights are what they are known to be."""

import os
import subprocess
import sys
from pathlib import Path

from gguf import GGUFReader

from cuvee.models.gguf_write import write_gguf
from cuvee.models.random_model import write_random_model
from cuvee.serve.bench.machine import busy_cores, bytes_a_token, copy_bytes_per_second, peak_bytes

HOLDER = "import sys; x = b'x' * (200 << 20); del x; print(flush=True); sys.stdin.read()"


def test_memory_is_the_most_that_was_held_also_when_it_is_free_again() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = peak_bytes(process.pid)
        process.communicate()
    assert found is not None
    assert 200 << 20 < found < 260 << 20
    assert peak_bytes(process.pid) is None


def test_children_count_too() -> None:
    alone = peak_bytes(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        together = peak_bytes(os.getpid())
        process.communicate()
    assert alone is not None
    assert together is not None
    assert together - alone > 200 << 20


def test_a_token_reads_all_weights_but_one_row_of_an_embedding_of_its_own(tmp_path: Path) -> None:
    for tied in (True, False):
        folder, file = tmp_path / f"{tied}", tmp_path / f"{tied}.gguf"
        write_random_model(folder, tied=tied)
        write_gguf(folder, file, quantization="Q8_0")
        tensors = {t.name: int(t.n_bytes) for t in GGUFReader(file).tensors}
        rows = 1 if tied else 265
        embedding = tensors["token_embd.weight"]
        unread = 0 if tied else embedding - embedding // rows
        assert bytes_a_token(file) == sum(tensors.values()) - unread


def test_cores_are_as_many_as_there_are_at_most_and_copies_move_something() -> None:
    assert 0 <= busy_cores(0.1) <= (os.cpu_count() or 1)
    assert copy_bytes_per_second(2) > 1 << 20
