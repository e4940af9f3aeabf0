"""Simulated pendulums."""

from kdcore import hookimpl


@hookimpl
def register_datasets(register):
    """Announce the dataset."""
    register("pendulum", "kdcore_pendulum.dataset:Pendulums")
