"""Executors of the commands with ``--jobs``: processes of this machine, a Ray cluster, Slurm."""

from kdcore import hookimpl


@hookimpl
def register_executors(register):
    """Register ``local``, ``ray`` and ``slurm``."""
    register("local", "kdcore_executors.local:LocalExecutor")
    register("ray", "kdcore_executors.ray_cluster:RayExecutor")
    register("slurm", "kdcore_executors.slurm:SlurmExecutor")
