"""Modalities, datasets and protocols, and readers of plain recordings."""

from kdcore import hookimpl


@hookimpl
def register_modalities(register):
    """Register kinds of signals."""
    for name in ("accelerometer", "gyroscope", "orientation", "skeleton", "rgb", "depth", "flow"):
        register(name, f"kdcore_datasets.modalities:{name.upper()}")


@hookimpl
def register_datasets(register):
    """Register datasets: published ones, and formats for your own recordings."""
    register("utd-mhad", "kdcore_datasets.utd_mhad:UtdMhad")
    register("berkeley-mhad", "kdcore_datasets.berkeley_mhad:BerkeleyMhad")
    register("mmact", "kdcore_datasets.mmact:Mmact")
    register("ntu-rgbd", "kdcore_datasets.ntu_rgbd:NtuRgbd")
    register("sensor-csv", "kdcore_datasets.sensor_csv.dataset:SensorCsv")
    register("skeleton-collection", "kdcore_datasets.skeleton_collection:SkeletonCollection")
    register("skeleton-npz", "kdcore_datasets.skeleton_files:SkeletonFiles")
    register("skeleton-json", "kdcore_datasets.skeleton_files:SkeletonFiles")
    register("skeleton-text", "kdcore_datasets.skeleton_files:SkeletonFiles")
    register("windows", "kdcore_datasets.window_arrays:Windows")
    register("uci-har", "kdcore_datasets.window_arrays:UciHar")
    register("synthetic-motion", "kdcore_datasets.synthetic.dataset:SyntheticMotion")


@hookimpl
def open_recording(source, decimal):
    """Open arrays and tables of numbers that belong to no dataset."""
    from kdcore_datasets import plain_recordings

    return plain_recordings.open_recording(source, decimal)


@hookimpl
def register_commands(cli):
    """Add the command ``data new``."""
    from kdcore_datasets.commands import new

    group = next(each.typer_instance for each in cli.registered_groups if each.name == "data")
    group.command("new")(new)


@hookimpl
def register_protocols(register):
    """Register protocols, which split samples."""
    register("cross-subject", "kdcore_datasets.protocols.subjects:CrossSubject")
    register("leave-one-subject-out", "kdcore_datasets.protocols.subjects:LeaveOneSubjectOut")
    register("subject-folds", "kdcore_datasets.protocols.folds:SubjectFolds")
    register("stratified-subject-folds", "kdcore_datasets.protocols.folds:StratifiedSubjectFolds")
    register("held-out-list", "kdcore_datasets.protocols.lists:HeldOutList")
    register("explicit", "kdcore_datasets.protocols.subjects:Explicit")
    register("disjoint-subjects", "kdcore_datasets.protocols.subjects:DisjointSubjects")
    register("subject-specific", "kdcore_datasets.protocols.trials:SubjectSpecific")
    register("cross-view", "kdcore_datasets.protocols.conditions:CrossView")
    register("cross-scene", "kdcore_datasets.protocols.conditions:CrossScene")
    register("cross-session", "kdcore_datasets.protocols.conditions:CrossSession")
    register("ntu-cross-subject", "kdcore_datasets.protocols.ntu:NtuCrossSubject")
    register("ntu-cross-view", "kdcore_datasets.protocols.ntu:NtuCrossView")
