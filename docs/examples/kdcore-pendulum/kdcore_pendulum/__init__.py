"""Simulated pendulums."""

from kdcore import hookimpl


@hookimpl
def register_datasets(register):
    """Register the dataset."""
    register("pendulum", "kdcore_pendulum.dataset:Pendulums")
