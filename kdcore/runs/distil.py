"""`kdcore.distil`: distillation of your own networks on a `DataLoader`, without a recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal

import torch
from torch import nn

from kdcore.contracts.loss import DistillationLoss
from kdcore.contracts.target import EVERY_TARGET, Target, TargetKind
from kdcore.errors import DataError, UsageError, type_name
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import DISTILLED, Plan, make_plan
from kdcore.runs.callbacks import Callbacks, RunListener
from kdcore.runs.distilled import STUDENT, Distilled, EpochHistory
from kdcore.runs.progress import listener_for
from kdcore.suggestions import did_you_mean
from kdcore.training.fabric import gradient_scaler, make_fabric
from kdcore.training.loaders import INPUT, Batches, LoadedBatch, LoaderAssembly, LoaderEngine, LoaderTable, read_batch
from kdcore.training.preflight import preflight
from kdcore.training.randomness import make_deterministic, preserved_torch
from kdcore.training.settings import Settings
from kdcore.training.tensor_loss import TensorLoss

Term = str | Mapping[str, Any] | DistillationLoss | TensorLoss
"""A term of the objective: the name of a registered loss, a mapping with its name and options, or a loss object."""


def distil(
    student: nn.Module,
    teachers: nn.Module | Mapping[str, nn.Module],
    loader: Iterable[Any],
    losses: Sequence[Term | tuple[Term, Any]],
    *,
    epochs: int = 10,
    target: TargetKind = "classes",
    validation: Iterable[Any] | None = None,
    taps: Mapping[str, Sequence[str] | Mapping[str, str]] | None = None,
    optimizer: str | Mapping[str, Any] = "adamw",
    learning_rate: str | Mapping[str, Any] = "constant",
    gradient_clip: float | None = None,
    select: Literal["last", "best"] = "last",
    accumulate: int = 1,
    early_stopping: Mapping[str, Any] | None = None,
    ema: Mapping[str, Any] | None = None,
    parameter_groups: Sequence[Mapping[str, Any]] = (),
    device: str | torch.device = "auto",
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true",
    seed: int = 0,
    steps: int | None = None,
    unpack: Callable[[Any], Any] | None = None,
    callbacks: Sequence[RunListener] = (),
    progress: bool | None = None,
) -> Distilled:
    """Train your own student with your own trained teachers, on the batches of any loader. Needs no recipe, writes no files.

    The student is trained in place, with the same training loop and checks as recipes. Teachers are frozen and in evaluation
    mode during training, and restored afterwards. All networks are moved to `device` and stay there.

    A batch is one of

    - ``(x, labels)``, or ``x`` without labels;
    - ``(x, teachers_x, labels)``, where ``teachers_x`` is one input for all teachers, or a mapping teacher → input;
    - a dictionary with ``x`` for all participants, or one input per participant (``student`` and the teachers' names), and
      optionally ``labels``; ``weights``, sample weights for terms that read labels; and ``index``, the index of each sample in
      the dataset, which losses with a memory of samples require.

    An unlabelled sample has the label -1, or NaN in all columns.

    Args:
        student: Network from the input to logits (B, classes).
        teachers: A teacher, with the name ``teacher``, or a mapping name → teacher; ``{}`` to train without teachers.
        loader: Yields the batches of one epoch each time it is iterated, such as a `torch.utils.data.DataLoader`. One batch is
            read before training for checks.
        losses: Terms of the objective. A term is written as in a recipe, ``"dist"`` or ``{"name": "dist", "weight": 2}``; or is
            a `kdcore.DistillationLoss` or a result of `kdcore.loss`; or is a pair (term, weight).
        epochs: Passes over the loader.
        target: ``classes``: labels are class indices (B,). ``labels``: labels are 0 or 1, (B, names). ``values``: labels are
            numbers (B, names), or (B,) for one value, in the scale that the networks predict; normalise them yourself.
        validation: Loader of labelled batches, evaluated after each epoch: accuracy, mAP for labels, MAE for values.
        taps: Participant → paths of its modules whose outputs losses read, or tap → path, as
            ``{"student": ["layer4"], "big": {"layer4": "blocks.11"}}``.
        optimizer: Name of an optimizer of `torch.optim`, or a mapping with ``name`` and options; ``lr`` is 1e-3 by default.
        learning_rate: ``constant``, ``cosine`` …, or a mapping with ``name`` and options; see `kdcore.LearningRate`.
        gradient_clip: Largest norm of the gradient.
        select: Keep the weights of the ``last`` epoch, or of the ``best`` one on the validation loader.
        accumulate: Batches per optimizer step.
        early_stopping: Options of `kdcore.EarlyStopping`, such as ``{"patience": 5, "metric": "loss"}``; None to disable it.
        ema: Options of `kdcore.MovingAverage`, to keep a moving average of the student's weights; None to disable it.
        parameter_groups: Options of `kdcore.ParameterGroup`, for modules with their own learning rate, weight decay or frozen
            epochs.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``32-true``, or mixed precision.
        seed: Random seed of the training, set at each epoch. Loaders with their own generator are not affected.
        steps: Batches per epoch; the length of the loader by default.
        unpack: Converts a batch of the loader to one of the forms above.
        callbacks: Callbacks of the training.
        progress: Whether to show progress; by default only in a notebook.

    Raises:
        RecipeError: If a term, tap or option is invalid, with the same messages as for recipes.
        DataError: If a batch has none of the forms above, or lacks labels that a term reads.
        TrainingError: If a term gives the student no gradient, or is NaN or infinite.

    Example:
        >>> import torch, kdcore
        >>> student, teacher = torch.nn.Linear(6, 3), torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Linear(9, 3))
        >>> samples = torch.utils.data.TensorDataset(torch.randn(32, 6), torch.randint(3, (32,)))
        >>> loader = torch.utils.data.DataLoader(samples, batch_size=8, shuffle=True)
        >>> result = kdcore.distil(student, teacher, loader, ["dist", "cross-entropy"], epochs=2, device="cpu")
        >>> list(result.history.columns)
        ['epoch', 'total', 'dist', 'cross-entropy', 'learning_rate']
    """
    training = {
        "epochs": epochs,
        "optimizer": _named("optimizer", optimizer),
        "learning_rate": _named("learning_rate", learning_rate),
        "gradient_clip": gradient_clip,
        "select": select,
        "accumulate": accumulate,
        "early_stopping": None if early_stopping is None else dict(early_stopping),
        "ema": None if ema is None else dict(ema),
        "parameter_groups": [dict(each) for each in parameter_groups],
    }
    _check_options(target, training, validation)
    if not isinstance(losses, list | tuple):
        raise UsageError(f"losses must be a list, not {type(losses).__name__}")
    if isinstance(loader, tuple) and any(isinstance(each, torch.Tensor) for each in loader):
        raise UsageError("loader is a single batch: pass a DataLoader or a list of batches, such as [(x, labels)]")
    networks = _networks(student, teachers)
    data = _Data(loader, unpack, tuple(name for name in networks if name != STUDENT), target, validation, steps)
    with preserved_torch(), _teachers_frozen(networks):
        torch.manual_seed(seed)
        batch = data.first_batch()
        objects = {f"{_place(name)}.encoder": network for name, network in networks.items()}
        recipe = {
            "version": 1,
            "name": "distil",
            "baseline": False,
            "data": {"protocol": FROM_PYTHON, "batch_size": len(batch)},
            **_participants(networks, taps or {}),
            "losses": [_term(index, each, objects) for index, each in enumerate(losses)],
            "training": training,
            "engine": {**_accelerator(device), "precision": precision},
            "seeds": [seed],
        }
        plan = make_plan(load_recipe(recipe, data=_dataset_of(data, batch), objects=objects))
        return _train(plan, networks, data, batch, listener_for(callbacks, progress))


@dataclass(frozen=True)
class _Data:
    """The caller's batches.

    Args:
        loader: Yields the batches of an epoch.
        custom: Converts a batch of the loader to a form that `read_batch` knows; None if it has one.
        teachers: Names of the teachers.
        target: Kind of the labels.
        validation: Yields labelled batches for validation; None for no validation.
        steps: Batches per epoch; None for the length of the loader.
    """

    loader: Iterable[Any]
    custom: Callable[[Any], Any] | None
    teachers: Sequence[str]
    target: TargetKind
    validation: Iterable[Any] | None
    steps: int | None

    def unpack(self, loaded: Any) -> LoadedBatch:
        """Convert a batch of the loader."""
        return read_batch(loaded if self.custom is None else self.custom(loaded), STUDENT, self.teachers, self.target)

    def first_batch(self) -> LoadedBatch:
        """Read one batch for checks; the states of the loader's generators are restored, so training sees the same batches."""
        holders = (self.loader, getattr(self.loader, "sampler", None))
        generators = {id(each): each for holder in holders if (each := getattr(holder, "generator", None)) is not None}
        states = [(each, each.get_state()) for each in generators.values()]
        try:
            batches = iter(self.loader)
            if batches is self.loader:
                raise UsageError("loader is iterated once per epoch: pass a DataLoader or a list of batches, not an iterator")
            return self.unpack(next(batches))
        except StopIteration:
            raise DataError("the loader yields no batches") from None
        finally:
            for generator, state in states:
                generator.set_state(state)

    @property
    def length(self) -> int:
        """Batches per epoch."""
        if self.steps is not None:
            return self.steps
        try:
            return len(self.loader)  # type: ignore[arg-type]
        except TypeError:
            raise UsageError("the loader has no length: set steps= to the number of batches per epoch") from None


def _networks(student: nn.Module, teachers: nn.Module | Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Teachers and student by name, the student last."""
    named = dict(teachers) if isinstance(teachers, Mapping) else {"teacher": teachers}
    for name, network in {**named, STUDENT: student}.items():
        if isinstance(network, type) or not isinstance(network, nn.Module):
            raise UsageError(f"{name} must be a torch.nn.Module, not {type_name(network)}")
    if STUDENT in named:
        raise UsageError(f"a teacher cannot be called {STUDENT!r}")
    own = {id(parameter) for parameter in student.parameters()}
    for name, network in named.items():
        if any(id(parameter) in own for parameter in network.parameters()):
            raise UsageError(f"{name} shares parameters with the student, which it would change: pass a copy (copy.deepcopy)")
    return {**named, STUDENT: student}


def _place(name: str) -> str:
    return name if name == STUDENT else f"teachers.{name}"


def _term(index: int, given: Any, objects: dict[str, Any]) -> Any:
    """Write a term as in a recipe; a loss object is added to `objects` under its path."""
    weight = None
    if isinstance(given, tuple):
        if len(given) != 2:
            raise UsageError(f"losses[{index}] must be a loss or a pair of a loss and its weight, not {len(given)} things")
        given, weight = given
    weighted = {} if weight is None else {"weight": weight}
    if isinstance(given, str | Mapping):
        return {**({"name": given} if isinstance(given, str) else given), **weighted}
    loss = given.term if isinstance(given, TensorLoss) else given
    if not isinstance(loss, DistillationLoss):
        raise UsageError(f"losses[{index}] must be the name of a loss or a kdcore.DistillationLoss, not {type_name(given)}")
    name = given.name if isinstance(given, TensorLoss) else type(loss).__name__
    taken = sum(type(each) is type(loss) for path, each in objects.items() if path.startswith("losses["))
    objects[f"losses[{index}]"] = loss
    return {"name": FROM_PYTHON, "id": f"{name}-{taken + 1}" if taken else name, **weighted}


def _named(key: str, given: Any) -> Any:
    if isinstance(given, type) or not (isinstance(given, str | Mapping) or is_dataclass(given)):
        raise UsageError(f"{key} must be a name, or a mapping with a name and options, not {type_name(given)}")
    return {"name": given} if isinstance(given, str) else given


def _check_options(target: TargetKind, training: Mapping[str, Any], validation: Iterable[Any] | None) -> None:
    """Check the target, and refuse options of `training` that require a validation loader without one."""
    if target not in EVERY_TARGET:
        raise UsageError(f"target={target!r} is not one of {', '.join(EVERY_TARGET)}")
    rate = training["learning_rate"]
    plateau = isinstance(rate, Mapping) and rate.get("name") == "plateau" and rate.get("monitor") != "training-loss"
    stops = training["early_stopping"] is not None
    for key, used in {"select='best'": training["select"] == "best", "early_stopping": stops, "'plateau'": plateau}.items():
        if used and validation is None:
            raise UsageError(f"{key} requires validation=, a loader of labelled batches")


def _accelerator(device: str | torch.device) -> dict[str, Any]:
    """Convert a device to options of a recipe's ``engine`` section."""
    if device == "auto":
        return {"accelerator": "auto"}
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device={device!r} is not a device: {error}") from error
    return {"accelerator": wanted.type, **({} if wanted.index is None else {"devices": f"{wanted.index},"})}


@contextmanager
def _teachers_frozen(networks: Mapping[str, nn.Module]) -> Iterator[None]:
    """Context that restores the teachers' modes and `requires_grad` afterwards, and leaves the student in evaluation mode."""
    teachers = [network for name, network in networks.items() if name != STUDENT]
    modes = [(module, module.training) for network in teachers for module in network.modules()]
    trained = [(parameter, parameter.requires_grad) for network in teachers for parameter in network.parameters()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
        networks[STUDENT].eval()


def _participants(networks: Mapping[str, nn.Module], taps: Mapping[str, Any]) -> dict[str, Any]:
    """The sections ``teachers`` and ``student`` of the equivalent recipe."""
    if unknown := [name for name in taps if name not in networks]:
        raise UsageError(f"taps: there is no participant {unknown[0]!r} ({did_you_mean(unknown[0], networks)})")
    specs: dict[str, Any] = {name: {"modality": INPUT, "encoder": FROM_PYTHON, "taps": taps.get(name, {})} for name in networks}
    student = specs.pop(STUDENT)
    return {"teachers": {name: {**each, "freeze": ["*"]} for name, each in specs.items()}, "student": student}


def _dataset_of(data: _Data, batch: LoadedBatch, outputs: int = 0) -> Batches:
    """Describe the batches as a dataset. Values have mean 0 and std 1: the networks predict them in their own scale."""
    size = outputs if data.target == "values" else 0
    return Batches(outputs, Target(data.target, mean=(0.0,) * size, std=(1.0,) * size), batch.weights is not None)


def _train(plan: Plan, networks: Mapping[str, nn.Module], data: _Data, batch: LoadedBatch, listener: RunListener) -> Distilled:
    """Check the plan on the first batch, and train the student."""
    reading = [each.term.id for each in plan.participants[STUDENT].terms_in(DISTILLED) if each.needs.labelled]
    if reading and batch.labels is None:
        raise DataError(f"the loss {reading[0]!r} reads labels, but the batches have none")
    recipe, steps, history = plan.recipe, data.length, EpochHistory()
    make_deterministic(recipe.engine.compile)
    scaler = gradient_scaler(recipe.engine)
    fabric = make_fabric(recipe.engine, scaler)
    for network in networks.values():
        network.to(fabric.device)
    table, stages = LoaderTable(batch, fabric.device), plan.stages[DISTILLED]
    sizes = _outputs(networks, table)
    largest = max(batch.labels.tolist(), default=-1) if batch.labels is not None and data.target == "classes" else -1
    if largest >= sizes.get(STUDENT, sys.maxsize):
        raise DataError(f"a label is {largest}, but the student has {sizes[STUDENT]} logits (labels start at 0)")
    _refuse_other_classes(plan, sizes)
    dataset = _dataset_of(data, batch, sizes.get(STUDENT, 0))
    table.describe(dataset)
    assembly = LoaderAssembly(Builder(recipe, plugin_manager()), dataset, plan)
    distiller = assembly.distiller(table, recipe.seeds[0], DISTILLED, fabric.device)
    # No labels are withheld: batches after the first one may have some, for losses whose labels are optional.
    settings = Settings(recipe.seeds[0], len(batch), False, teacher_cache=False, checkpoint_seconds=float("inf"))
    try:
        with _sizes_noted(sizes):
            preflight(distiller, stages, table, len(batch), withheld=False)
        LoaderEngine(
            fabric,
            distiller,
            table,
            settings,
            listener=Callbacks([listener, history]),
            scaler=scaler,
            loader=data.loader,
            steps=steps,
            unpack=data.unpack,
            validation=data.validation,
        ).fit(stages)
    finally:
        for name in networks:
            distiller.participant(name).release()
    return Distilled(networks[STUDENT], history.epochs)


@torch.no_grad()
def _outputs(networks: Mapping[str, nn.Module], table: LoaderTable) -> dict[str, int]:
    """Network → number of logits. Networks that fail are left out: the setup reports their error with more context."""
    sizes = {}
    for name, network in networks.items():
        mode = network.training
        with suppress(Exception):
            sizes[name] = int(network.eval()(table.current.signals[name]).shape[1])
        network.train(mode)
    return sizes


def _refuse_other_classes(plan: Plan, sizes: Mapping[str, int]) -> None:
    """Refuse terms that compare logits of different numbers of classes: one logit would be broadcast to all classes.

    A loss that declares taps of teachers may read nothing else of them; one that reads every class handles the difference.
    """
    for each in plan.participants[STUDENT].terms_in(DISTILLED):
        if each.needs.teacher_taps or each.needs.every_class:
            continue
        for name in each.teachers:
            if name in sizes and STUDENT in sizes and sizes[name] != sizes[STUDENT]:
                raise DataError(
                    f"the loss {each.term.id!r} compares logits, but {name} has {sizes[name]} logits and the student "
                    f"{sizes[STUDENT]} (a loss of your own that can handle this declares Needs(every_class=True))"
                )


@contextmanager
def _sizes_noted(sizes: Mapping[str, int]) -> Iterator[None]:
    """Add the networks' numbers of classes to a shape error, because a difference is its usual cause."""
    try:
        yield
    except RuntimeError as error:
        if len(set(sizes.values())) > 1:
            error.add_note("numbers of logits: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
        raise
