"""Jobs as Slurm jobs, through submitit."""

from __future__ import annotations

import shutil
from typing import Annotated, Any, Literal

from annotated_types import Ge

from kdcore import Executor, Job, StartedJob, UsageError
from kdcore_executors.command import LOST, Command


class SlurmExecutor(Executor):
    """Submits each job to Slurm with submitit. A job that is preempted or out of time saves its state and is requeued.

    Source: submitit, Meta AI, 2020, https://github.com/facebookincubator/submitit.

    Args:
        partition: Partition; empty for Slurm's default.
        minutes: Time limit of a job.
        cpus: CPU cores of a job, and the number of its threads unless ``OMP_NUM_THREADS`` is set.
        gpus: GPUs of a job.
        parameters: Further options of ``sbatch``, such as ``{account: vision, mem: 8G}``.
        cluster: ``local`` lets submitit run jobs on this machine, to try it without Slurm.
    """

    def __init__(
        self,
        *,
        partition: str = "",
        minutes: Annotated[int, Ge(1)] = 1440,
        cpus: Annotated[int, Ge(1)] = 1,
        gpus: Annotated[int, Ge(0)] = 0,
        parameters: dict[str, str | int] | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ):
        try:
            import submitit
        except ImportError as error:
            raise UsageError(
                "--executor slurm: submitit is not installed; install it with pip install 'kdcore[slurm]'"
            ) from error
        if cluster == "slurm" and not shutil.which("srun"):
            raise UsageError("--executor slurm: this machine has no srun; run the command on a login node of the cluster")
        self._submitit, self.cluster, self.cpus = submitit, cluster, cpus
        self._settings: dict[str, Any] = {"timeout_min": minutes, "cpus_per_task": cpus, "gpus_per_node": gpus}
        if cluster == "slurm":
            self._settings |= {"slurm_additional_parameters": parameters or {}}
            self._settings |= {"slurm_partition": partition} if partition else {}

    def start(self, job: Job, at_once: int) -> StartedJob:
        """Submit the job; submitit keeps its files beside the job's log."""
        executor = self._submitit.AutoExecutor(folder=job.log.parent / "submitit", cluster=self.cluster)
        executor.update_parameters(name=job.label, **self._settings)
        # sbatch passes the environment on; submitit would write a password in it to a file
        return _Submitted(executor.submit(_Requeueable(Command.of(job, self.cpus, ("KDCORE_",)))))


class _Requeueable:
    """A command that submitit may submit again: it does what is left."""

    def __init__(self, command: Command):
        self.command = command

    def __call__(self) -> int:
        return self.command.run()

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Submitted(StartedJob):
    def __init__(self, job: Any):
        self._job = job

    def status(self) -> int | None:
        if not self._job.done():
            return None
        try:
            return self._job.result()
        except Exception:  # submitit's errors of a job without a result: cancelled, out of memory, its machine died
            return LOST

    def stop(self) -> None:
        self._job.cancel(check=False)
