"""A Ray cluster of two machines, one of which dies on the way."""

from __future__ import annotations

import time

import pytest
from quick import QUICK, runs_of
from runs import Home, results_of

pytest.importorskip("ray", reason="Ray is not installed: pip install 'kdcore[ray]'")

LONGER = {
    **QUICK,
    "seeds": [0],
    "schedule": {"name": "two-stage", "teachers": {"epochs": 6}, "student": {"epochs": 6}},
}


@pytest.fixture
def cluster(monkeypatch):
    """Two machines with one core each."""
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.mark.slow
def test_an_ablation_on_a_cluster_that_loses_a_machine_equals_the_serial_one(tmp_path, cluster):
    serial, spread = (
        Home(tmp_path / name, tmp_path / "mlflow.db").write(**LONGER, name="tiny") for name in ("serial", "spread")
    )
    assert serial.finish("ablate", str(serial.recipe)) == 0, serial.said()

    where = f"{{name: ray, address: '{cluster.address}'}}"
    process = spread.start("ablate", str(spread.recipe), "--jobs", "2", "--executor", where)
    until = time.monotonic() + 200
    while len([run for run in spread.runs if list(run.glob("checkpoints/*/weights.safetensors"))]) < 2:
        assert process.is_alive(), spread.said()
        assert time.monotonic() < until, spread.said()
        time.sleep(0.02)
    cluster.remove_node(cluster.second, allow_graceful=False)
    process.join(400)
    assert process.exitcode == 0, spread.said()

    assert spread.said().count("; starting it again, to resume its run") == 1
    assert len(runs_of(spread)) == len(runs_of(serial)) == 2  # the lost one was resumed
    ended = [{run.name.partition("-tiny-")[2]: results_of(run) for run in runs_of(home)} for home in (serial, spread)]
    assert ended[0] == ended[1]
    tables = [next((home.folder / "runs" / "ablations").glob("tiny-*.csv")).read_text() for home in (serial, spread)]
    assert without_cost(tables[0]) == without_cost(tables[1])


def without_cost(table: str) -> list[str]:
    """The lines of a table but for time and memory, which are measured."""
    return [line for line in table.splitlines() if "seconds" not in line and "memory_bytes" not in line]
