"""Jobs as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
from typing import Annotated, Any

from annotated_types import Ge

from kdcore import Executor, Job, StartedJob, UsageError
from kdcore_executors.command import LOST, Command


class RayExecutor(Executor):
    """Runs each job as a task of a Ray cluster, whose machines see the same files and have the same kdcore.

    Source: Moritz et al., Ray: A Distributed Framework for Emerging AI Applications, OSDI 2018, https://arxiv.org/abs/1712.05889.

    Args:
        address: Address of the cluster; ``auto`` for ``$RAY_ADDRESS``, else the cluster that this machine belongs to.
        cpus: CPU cores of a job, and the number of its threads unless ``OMP_NUM_THREADS`` is set.
        gpus: GPUs of a job; None for one where the cluster has any.
    """

    def __init__(self, *, address: str = "auto", cpus: Annotated[int, Ge(1)] = 1, gpus: Annotated[float, Ge(0)] | None = None):
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UsageError("--executor ray: Ray is not installed; install it with pip install 'kdcore[ray]'") from error
        self._ray, self._owned = ray, not ray.is_initialized()
        if self._owned:
            try:
                ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
                known = "" if where == "auto" else f" at {where!r}"
                raise UsageError(
                    f"--executor ray: no Ray cluster responds{known}; start one with ray start --head, "
                    "or give its address with --executor '{name: ray, address: HOST:PORT}'"
                ) from error
        self.cpus = cpus
        self.gpus = min(1.0, ray.cluster_resources().get("GPU", 0.0)) if gpus is None else gpus
        self._refuse_more_than_there_is()

    def _refuse_more_than_there_is(self) -> None:
        """Refuse a job that no machine has room for: it would wait for ever."""
        machines = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
        if not any(each.get("CPU", 0) >= self.cpus and each.get("GPU", 0) >= self.gpus for each in machines):
            most = {name: max((each.get(name, 0) for each in machines), default=0) for name in ("CPU", "GPU")}
            self.close()
            raise UsageError(
                f"--executor ray: no machine of the cluster has {self.cpus} CPUs and {self.gpus:g} GPUs "
                f"(the most that one has: {most['CPU']:g} CPUs, {most['GPU']:g} GPUs)"
            )

    def start(self, job: Job, at_once: int) -> StartedJob:
        """Submit the task; Ray runs it as soon as a machine has room for it."""
        task = self._ray.remote(Command.run).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, name=job.label, scheduling_strategy="SPREAD"
        )
        return _Task(self._ray, task.remote(Command.of(job, self.cpus)))

    def close(self) -> None:
        """Disconnect from the cluster."""
        if self._owned:
            self._ray.shutdown()


class _Task(StartedJob):
    def __init__(self, ray: Any, reference: Any):
        self._ray, self._reference = ray, reference

    def status(self) -> int | None:
        done, _ = self._ray.wait([self._reference], timeout=0)
        if not done:
            return None
        try:
            return self._ray.get(self._reference)
        except (self._ray.exceptions.RayError, KeyboardInterrupt):  # its worker or machine died, or it was stopped
            return LOST

    def stop(self) -> None:
        self._ray.cancel(self._reference)
