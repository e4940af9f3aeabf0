"""Fixed networks in ONNX, TorchScript and ``torch.export`` files, as teachers that cannot be trained."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from kdcore import Encoder, trusts_code
from kdcore_export.onnx_student import open_session

Kind = Literal["logits", "probabilities"]
_CLOSE = 1e-4


class FileNetwork(Encoder):
    """A complete network in a file. It runs on the CPU, cannot be trained, and passes no gradient to its input.

    Args:
        file: Path of the file.
        num_classes: Number of outputs.
        in_shape: Shape of the input, without the batch axis.
        order: Order in which the file expects the axes after the batch axis; unchanged if empty.
        gives: Kind of output.

    Raises:
        ValueError: If the file cannot be loaded, or does not match.
    """

    fixed: ClassVar[bool] = True
    targets = ("classes",)
    digest: Tensor

    def __init__(self, file: Path, num_classes: int, in_shape: tuple[int, ...], order: tuple[int, ...], gives: Kind):
        super().__init__()
        if order and sorted(order) != list(range(len(in_shape))):
            raise ValueError(f"order must name the axes 0 to {len(in_shape) - 1} once each, not {list(order)}")
        if not file.is_file():
            raise ValueError(f"file {str(file)!r} does not exist")
        self.file, self.num_classes, self.gives = file, num_classes, gives
        self.order = order
        self.wanted = tuple(in_shape[axis] for axis in order) if order else tuple(in_shape)
        self.register_buffer("digest", _digest([file, *self.external_files()]))  # cached outputs are stored under this digest

    def external_files(self) -> list[Path]:
        """Other files that the network is read from."""
        return []

    @abstractmethod
    def run(self, x: np.ndarray) -> np.ndarray:
        """Return the output for an input (B, …) with the file's own order of axes."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes), on the device of the input, without a graph.

        Raises:
            ValueError: If the output has another shape, is not finite, or is probabilities although logits are declared.
        """
        given = x.detach().float()
        if self.order:
            given = given.permute(0, *(1 + axis for axis in self.order))
        found = torch.from_numpy(np.array(self.run(given.contiguous().cpu().numpy()), dtype=np.float32))
        if found.shape != (len(x), self.num_classes):
            raise ValueError(
                f"{self.file.name}: its output has shape {tuple(found.shape)}, expected {(len(x), self.num_classes)}; "
                "`classes` of the participant names the classes of its outputs"
            )
        if not torch.isfinite(found).all():
            raise ValueError(f"{self.file.name}: its output has values that are not finite")
        return self._logits(found).to(x.device)

    def _logits(self, found: Tensor) -> Tensor:
        probability_like = self.num_classes > 1 and bool((found >= 0).all() and ((found.sum(dim=1) - 1).abs() < _CLOSE).all())
        if self.gives == "probabilities":
            if not probability_like:
                raise ValueError(f"{self.file.name}: its output is not probabilities: rows must be positive and sum to 1")
            return found.clamp_min(torch.finfo(found.dtype).tiny).log()
        if probability_like:
            raise ValueError(
                f"{self.file.name}: its output looks like probabilities rather than logits; "
                "set gives: probabilities, or choose the output of logits"
            )
        return found

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        kept = state_dict.get(f"{prefix}digest")
        if kept is not None and not torch.equal(kept.cpu(), self.digest.cpu()):
            error_msgs.append(f"{self.file}: the file has changed since the run was made")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def __deepcopy__(self, memo: dict[int, Any]) -> FileNetwork:
        return self  # it is immutable, and an inference session cannot be copied


class OnnxNetwork(FileNetwork):
    """A fixed network in an ONNX file, for a teacher with ``freeze: ["*"]``.

    Requires ``pip install 'kdcore[export]'``. ONNX files contain no code. A file with tensors outside its folder is rejected.

    Args:
        file: The ``.onnx`` file, with one input (B, …).
        num_classes: Filled in by kdcore.
        in_shape: Filled in by kdcore.
        output: Name of the output. Default: ``logits`` if it exists, or else the only output.
        order: Order in which the file expects the axes of the input after the batch axis, starting at 0: ``[1, 0]`` for a file
            that reads (B, time, channel). Default: unchanged.
        gives: ``logits``, or ``probabilities``, whose logarithm is used.

    Raises:
        ValueError: If the file cannot be read, its input or output does not match, or tensors are outside its folder.
    """

    def __init__(
        self,
        *,
        file: Path,
        num_classes: int,
        in_shape: tuple[int, ...],
        output: str = "",
        order: tuple[int, ...] = (),
        gives: Kind = "logits",
    ):
        self._external: list[Path] = _external_data(file) if file.is_file() else []
        super().__init__(file, num_classes, in_shape, order, gives)
        self._session = _session(file)
        inputs, outputs = self._session.get_inputs(), [each.name for each in self._session.get_outputs()]
        if len(inputs) != 1:
            raise ValueError(f"{file.name}: has {len(inputs)} inputs ({', '.join(each.name for each in inputs)}), expected one")
        if output and output not in outputs:
            raise ValueError(f"{file.name}: has no output {output!r} (it has {', '.join(outputs)})")
        if not output and len(outputs) > 1 and "logits" not in outputs:
            raise ValueError(f"{file.name}: choose one of its outputs with `output`: {', '.join(outputs)}")
        self._output = output or ("logits" if "logits" in outputs else outputs[0])
        self._input = inputs[0].name
        batch, *rest = inputs[0].shape
        fits = len(rest) == len(self.wanted) and all(
            not isinstance(size, int) or size == own for size, own in zip(rest, self.wanted, strict=True)
        )
        if not fits:
            shape = ", ".join(map(str, (*rest,)))
            raise ValueError(
                f"{file.name}: reads (B, {shape}), and the participant's input is (B, {', '.join(map(str, self.wanted))}); "
                "change the transforms, or `order`"
            )
        if inputs[0].type != "tensor(float)":
            raise ValueError(f"{file.name}: reads {inputs[0].type}, expected tensor(float)")
        self._batch = batch if isinstance(batch, int) else 0
        if self._batch > 1:
            raise ValueError(f"{file.name}: reads batches of {self._batch}; export it with a batch of any size, or of 1")

    def external_files(self) -> list[Path]:
        """Files with tensors."""
        return self._external

    def run(self, x: np.ndarray) -> np.ndarray:
        """Return the selected output; sample by sample if the file reads one at a time."""
        parts = [x[row : row + 1] for row in range(len(x))] if self._batch == 1 else [x]
        return np.concatenate([np.asarray(self._session.run([self._output], {self._input: part})[0]) for part in parts])


class _TorchFile(FileNetwork):
    """A network that PyTorch loads from a file with code."""

    form: ClassVar[str]

    def __init__(
        self,
        *,
        file: Path,
        num_classes: int,
        in_shape: tuple[int, ...],
        order: tuple[int, ...] = (),
        gives: Kind = "logits",
    ):
        super().__init__(file, num_classes, in_shape, order, gives)
        if not trusts_code():
            raise ValueError(
                f"{file}: the file contains code. If you trust its source, set KDCORE_TRUST_CODE=1 in the environment "
                "(ONNX files are data and need no trust)"
            )
        try:
            network = self.load()
            for parameter in network.parameters():  # TorchScript modules have no `requires_grad_`
                parameter.requires_grad_(False)
            self._network = (network,)  # not a submodule, which could be moved or tapped
        except Exception as error:
            raise ValueError(f"{file.name}: not a readable {self.form} file ({_first_line(error)})") from error

    @abstractmethod
    def load(self) -> nn.Module:
        """Return the network in the file."""

    def run(self, x: np.ndarray) -> np.ndarray:
        """Return its output; the first of several."""
        with torch.autocast("cpu", enabled=False):
            found = self._network[0](torch.from_numpy(x))
        found = found[0] if isinstance(found, list | tuple) else found
        if not isinstance(found, Tensor):
            raise ValueError(f"{self.file.name}: returns a {type(found).__name__}, expected a tensor")
        return found.numpy()


class TorchScriptNetwork(_TorchFile):
    """A fixed network in a TorchScript file, for a teacher with ``freeze: ["*"]``.

    The file contains code. It is only loaded if ``KDCORE_TRUST_CODE=1`` is set in the environment.

    Args:
        file: File written by ``torch.jit.save``.
        num_classes: Filled in by kdcore.
        in_shape: Filled in by kdcore.
        order: Order in which the file expects the axes of the input after the batch axis, starting at 0.
        gives: ``logits``, or ``probabilities``, whose logarithm is used.

    Raises:
        ValueError: If the file is not trusted, or cannot be loaded.
    """

    form = "TorchScript"

    def load(self) -> nn.Module:
        """Return the network in the file."""
        with warnings.catch_warnings():  # a deprecation notice that recommends torch.export
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(self.file), map_location="cpu").eval()


class ExportedNetwork(_TorchFile):
    """A fixed network in a ``torch.export`` file, for a teacher with ``freeze: ["*"]``.

    The file may contain code. It is only loaded if ``KDCORE_TRUST_CODE=1`` is set in the environment.

    Args:
        file: ``.pt2`` file written by ``torch.export.save``.
        num_classes: Filled in by kdcore.
        in_shape: Filled in by kdcore.
        order: Order in which the file expects the axes of the input after the batch axis, starting at 0.
        gives: ``logits``, or ``probabilities``, whose logarithm is used.

    Raises:
        ValueError: If the file is not trusted, or cannot be loaded.
    """

    form = "torch.export"

    def load(self) -> nn.Module:
        """Return the network in the file."""
        with open(self.file, "rb") as stream:
            return torch.export.load(stream).module()


def _session(file: Path) -> Any:
    try:
        return open_session(file)
    except Exception as error:  # its exceptions have no common base
        raise ValueError(f"{file.name}: not a readable ONNX file ({_first_line(error)})") from error


def _external_data(file: Path) -> list[Path]:
    """Return the files next to an ONNX file that contain its tensors.

    Raises:
        ValueError: If one is outside its folder, or ONNX and ONNX Runtime are not installed.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{file}: an ONNX file needs ONNX Runtime: pip install 'kdcore[export]'") from error
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's exceptions have no common base
        raise ValueError(f"{file.name}: not a readable ONNX file ({_first_line(error)})") from error
    home, found = file.parent.resolve(), set()
    for tensor in _get_all_tensors(model):
        if uses_external_data(tensor):
            place = (file.parent / ExternalDataInfo(tensor).location).resolve()
            if not place.is_relative_to(home):
                raise ValueError(f"{file.name}: refused: a tensor is outside its folder, in {str(place)!r}")
            if not place.is_file():
                raise ValueError(f"{file.name}: its tensors are in {place.name}, which does not exist")
            found.add(place)
    return sorted(found)


def _digest(files: list[Path]) -> Tensor:
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
