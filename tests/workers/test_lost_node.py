"""A cluster of two Ray nodes on one machine loses one, and the work goes on."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from cuvee.recipe import Verify
from cuvee.records import Verdict
from cuvee.verify import clustered
from cuvee.verify.rows import Reading, check_rows

# Of a Ray that had to be started twice: it forgets its own processes.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
]


def untimed(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return [dataclasses.replace(verdict, seconds=0.0) for verdict in verdicts]


@pytest.mark.timeout(600)
def test_a_cluster_that_loses_a_node_gives_the_pool_s_verdicts(
    outputs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'cuvee[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    rows = outputs[:4000]
    limits = Verify(math_seconds=30)  # a busy machine must not decide a verdict
    monkeypatch.setattr(clustered, "CHUNK_ROWS", 64)
    assert not ray.is_initialized()
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = machines.add_node(num_cpus=1)
        with clustered.opened(machines.address, sandbox=None):
            assert len([node for node in ray.nodes() if node["Alive"]]) == 2
            verdicts = clustered.check_rows_on_ray(
                rows, Reading(), limits=limits, sandbox="bubblewrap", tick=lambda _: None
            )
            got = [next(verdicts) for _ in range(1000)]
            machines.remove_node(second, allow_graceful=False)
            got += verdicts
    finally:
        ray.shutdown()
        machines.shutdown()
    assert untimed(got) == untimed(check_rows(rows, limits=limits))
