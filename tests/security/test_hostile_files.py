"""Files from strangers: each sentence of docs/security.md on files, with a hostile one."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

import kdcore
from kdcore import archives
from kdcore.errors import CheckpointError, DataError
from kdcore.training.checkpoint import load_state
from kdcore.training.stored_outputs import load_outputs
from kdcore_datasets import delimited, file_formats
from kdcore_datasets.arrow_files import parquet_rows
from kdcore_datasets.collected_clips import load_npz
from kdcore_datasets.delimited import open_text
from kdcore_datasets.file_formats import read_pickle, read_variable
from kdcore_datasets.plain_recordings import open_recording
from kdcore_datasets.window_files import load_rows


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def array_of(value) -> np.ndarray:
    made = np.empty(1, dtype=object)
    made[0] = value
    return made


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_weights_run_nothing(tmp_path, proof, suffix, how):
    file = tmp_path / f"weights{suffix}"
    torch.save({"w": Payload(proof)}, file) if how == "torch" else file.write_bytes(pickle.dumps({"w": Payload(proof)}))
    with pytest.raises(CheckpointError, match=r"refused: it holds more than data|damaged"):
        load_state(file)


@pytest.mark.parametrize("content", [b"root:x:0:0:secret", b"", b"\x89PNG\r\n", b"GIF89a secret"])
def test_a_file_that_is_no_weights_is_refused_without_its_content(tmp_path, content):
    file = tmp_path / "passwd"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"neither a \.safetensors file nor a file that torch\.save wrote") as error:
        load_state(file)
    assert "secret" not in str(error.value)


def test_arrays_run_nothing(tmp_path, proof):
    np.save(tmp_path / "a.npy", array_of(Payload(proof)), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a readable array of numbers"):
        open_recording(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", **{name: array_of(Payload(proof)) for name in ("x_train", "y_train", "x_test", "y_test")})
    with pytest.raises(DataError):
        load_npz(tmp_path / "a.npz", 20)
    with pytest.raises(DataError):
        load_outputs(tmp_path / "a.npz")


def test_pickles_and_matlab_files_run_nothing(tmp_path, proof):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"annotations": Payload(proof)}))
    with pytest.raises(DataError, match=r"it refers to posix\.mkdir; only plain containers"):
        read_pickle(tmp_path / "a.pkl")
    savemat(tmp_path / "a.mat", {"d_iner": array_of("text")})
    with pytest.raises(DataError, match="not an array of numbers"):
        read_variable(tmp_path / "a.mat", "d_iner")
    (tmp_path / "b.mat").write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(DataError, match="not a readable MATLAB file"):
        read_variable(tmp_path / "b.mat", "d_iner")


def bomb(path: Path, names, size: int = 3 << 30) -> Path:
    """An archive of arrays that claim `size` bytes each."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(f"{name}.npy", header.getvalue() + b"\0" * 1000)
    content = bytearray(path.read_bytes())
    place = 0
    while (place := content.find(b"PK\x01\x02", place)) >= 0:  # the directory's claim of the size
        content[place + 24 : place + 28] = size.to_bytes(4, "little")
        place += 4
    path.write_bytes(content)
    return path


def test_archives_that_unpack_without_end_are_refused_before_they_are_unpacked(tmp_path):
    arrays = bomb(tmp_path / "bomb.npz", ["x_train", "y_train", "x_test", "y_test"])
    for read in (lambda: load_npz(arrays, 20), lambda: load_outputs(arrays), lambda: kdcore.refuse_bomb(arrays)):
        with pytest.raises(DataError, match=r"refused: [\d,]+ bytes that unpack to 12,884,901,888"):
            read()
    weights = bomb(tmp_path / "bomb.pt", ["data"])
    with pytest.raises(CheckpointError, match="that unpack to"):
        load_state(weights)


def matlab_bomb(path: Path, sizes: list[int]) -> Path:
    """A MATLAB file with an element that unpacks to each of these numbers of zero bytes, whatever its tag claims."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    elements = []
    for size in sizes:
        pack = zlib.compressobj(9)
        matrix = struct.pack("<IIIIIIIIII", 14, 0xFFFFFFF0, 6, 8, 6, 0, 5, 8, size // 8, 1)
        matrix += struct.pack("<II", 0x00010001, ord("x")) + struct.pack("<II", 9, size)
        packed = pack.compress(matrix) + pack.compress(bytes(size)) + pack.flush()
        elements.append(struct.pack("<II", 15, len(packed)) + packed)
    path.write_bytes(head + b"".join(elements))
    return path


@pytest.fixture
def small_limits(monkeypatch):
    """Limits so low that bombs of a few megabytes exceed them."""
    monkeypatch.setattr(archives, "LARGE", 1 << 21)
    monkeypatch.setattr(file_formats, "SMALL", 1 << 10)
    monkeypatch.setattr(delimited, "LARGE_TEXT", 1 << 18)


def test_matlab_files_that_unpack_without_end_are_refused(tmp_path, small_limits):
    file = matlab_bomb(tmp_path / "bomb.mat", [1 << 21, 1 << 22])
    with pytest.raises(DataError, match=r"bomb.mat: refused: [\d,]+ bytes that unpack to 2,09\d,\d{3}$"):
        read_variable(file, "x")
    claims = tmp_path / "claims.mat"
    claims.write_bytes(file.read_bytes()[:128] + struct.pack("<IIII", 14, 0xFFFFFFF0, 6, 8) + bytes(64))
    with pytest.raises(DataError, match=r"claims\.mat: not a readable MATLAB file"):
        read_variable(claims, "x")


def test_another_variable_of_a_matlab_file_is_not_read(tmp_path):
    savemat(tmp_path / "two.mat", {"x": np.ones((2, 3)), "y": np.zeros(1 << 16)}, do_compression=True)
    assert read_variable(tmp_path / "two.mat", "x").tolist() == np.ones((2, 3)).tolist()
    with pytest.raises(DataError, match=r"has no variable 'z' \(it holds x, y\)"):
        read_variable(tmp_path / "two.mat", "z")


@pytest.mark.parametrize(("name", "opener"), [("a.csv", gzip.open), ("a.csv.bz2", bz2.open), ("a.txt", lzma.open)])
def test_compressed_text_without_end_is_refused(tmp_path, name, opener, small_limits):
    with opener(tmp_path / name, "wb") as file:
        file.write(b"0,0,0,0\n" * (1 << 18))
    with pytest.raises(DataError, match=r"refused: [\d,]+ bytes that unpack to [2-6]\d\d,\d{3}$"):
        for _ in open_lines(tmp_path / name):
            pass


def open_lines(path: Path):
    with open_text(path) as file:
        yield from file


def test_parquet_with_more_values_than_bytes_is_refused(tmp_path, small_limits):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({name: pa.array(np.zeros(1 << 16)) for name in ("subject", "action", "trial", "logits")})
    with pq.ParquetWriter(tmp_path / "bomb.parquet", table.schema, compression="zstd") as writer:
        for _ in range(4):
            writer.write_table(table)
    for read in (load_outputs, lambda path: parquet_rows(path, "logits")):
        with pytest.raises(DataError, match=r"refused: [\d,]+ bytes that unpack to 8,388,608"):
            read(tmp_path / "bomb.parquet")
    pq.write_table(table.slice(0, 100), tmp_path / "small.parquet")
    assert len(parquet_rows(tmp_path / "small.parquet", "logits")) == 100


def test_hdf5_reads_no_other_file_runs_nothing_and_claims_no_more_than_it_has(tmp_path, proof):
    h5py = pytest.importorskip("h5py")
    outside, inside = tmp_path / "outside.h5", tmp_path / "inside" / "a.h5"
    inside.parent.mkdir()
    (tmp_path / "raw.bin").write_bytes(bytes(64))
    with h5py.File(outside, "w") as file:
        file["secret"] = np.arange(4.0)
    with h5py.File(inside, "w") as file:
        file["link"] = h5py.ExternalLink("../outside.h5", "secret")
        file["whole"] = h5py.ExternalLink(str(outside), "/")
        file["soft"] = h5py.SoftLink("/whole/secret")
        file.create_dataset("raw", (8,), "f8", external=[(str(tmp_path / "raw.bin"), 0, 64)])
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(outside), "secret", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("pickles", (1,), h5py.vlen_dtype(np.uint8))[0] = np.frombuffer(
            pickle.dumps(Payload(proof)), np.uint8
        )
        file["opaque"] = np.void(pickle.dumps(Payload(proof)))
        file.create_dataset("reference", data=file["raw"].ref, dtype=h5py.ref_dtype)
        file.create_dataset("huge", (10**9, 10**5), "f8", chunks=(1, 1000))
        file.create_dataset("zeros", (1 << 12, 1 << 17), "f4", chunks=(16, 1 << 17), compression="gzip")[:16] = 0
    for name in ("link", "whole/secret", "soft"):
        with pytest.raises(DataError, match=f"refused: '{name.partition('/')[0]}' in '{name}' is a link to another place"):
            load_rows(inside, name)
    for name in ("raw", "virtual"):
        with pytest.raises(DataError, match=f"refused: the values of '{name}' are in other files"):
            load_rows(inside, name)
    for name in ("pickles", "opaque", "reference"):
        with pytest.raises(DataError, match=f"refused: '{name}' holds neither numbers nor text"):
            load_rows(inside, name)
    for name in ("huge", "zeros"):
        with pytest.raises(DataError, match=r"refused: [\d,]+ bytes that unpack to"):
            load_rows(inside, name)


def test_saved_datasets_read_no_other_file_and_unpack_nothing(tmp_path):
    pa = pytest.importorskip("pyarrow")
    folder, table = tmp_path / "saved", pa.table({"x": np.zeros(1000)})
    folder.mkdir()
    for path, compression in ((folder / "a.arrow", "zstd"), (folder / "b.arrow", "lz4"), (tmp_path / "outside.arrow", None)):
        with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
            stream.write_table(table)
    (folder / "link.arrow").symlink_to("../outside.arrow")
    (folder / "dataset_info.json").write_text("{}")
    for name, said in (
        ("a.arrow", "refused: its values are compressed"),
        ("b.arrow", "refused: its values are compressed"),
        ("../outside.arrow", "refused: state.json names a file outside the folder"),
        (str(tmp_path / "outside.arrow"), "refused: state.json names a file outside the folder"),
        ("link.arrow", "refused: state.json names a file outside the folder"),
        (["a.arrow"], "refused: state.json names a file outside the folder"),
        ("gone.arrow", "not a readable Arrow file"),
    ):
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        os.utime(folder / "state.json", ns=(0, hash(str(name)) % 10**9))
        with pytest.raises(DataError, match=said):
            load_rows(folder, "x")


def test_damaged_arrow_files_are_refused(tmp_path):
    """Any byte changed: read or refused, and never beyond the file."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "y": ["a", "b"]})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    good = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
    for place in range(0, len(good), 3):
        (tmp_path / "a.arrow").write_bytes(good[:place] + bytes([good[place] ^ 0x7F]) + good[place + 1 :])
        for name in ("x", "y"):
            os.utime(tmp_path / "state.json", ns=(0, place))
            with contextlib.suppress(DataError):
                np.asarray(load_rows(tmp_path, name))


def test_an_honest_archive_is_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros(1 << 22))
    kdcore.refuse_bomb(tmp_path / "zeros.npz")


def test_an_array_that_claims_terabytes_is_refused(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 3)})
        file.write(b"\0" * 48)
    with pytest.raises(DataError, match=r"claims to contain more data than fits into memory|not a readable array"):
        open_recording(tmp_path / "a.npy")


def test_onnx_with_tensors_in_other_files_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    from kdcore_export.onnx_student import load_onnx

    outside = tmp_path / "secret.bin"
    outside.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "inside").mkdir()
    for location in ("../secret.bin", str(outside), "beside.bin"):
        tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        node = onnx.helper.make_node("Identity", ["w"], ["logits"])
        output = onnx.helper.make_tensor_value_info("logits", 1, [4])
        graph = onnx.helper.make_graph([node], "g", [], [output], [tensor])
        file = tmp_path / "inside" / "student.onnx"
        file.write_bytes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString())
        with pytest.raises(CheckpointError, match="not a readable ONNX file"):
            load_onnx(file)
