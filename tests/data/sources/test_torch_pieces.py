"""Tensors in pickles: what torch itself would read, and nothing of what a forged one asks for."""

import io
import pickle
import struct

import numpy as np
import pytest
import torch

from mmsa_lib.data.sources.safe_pickle import UnsafePickleError, load
from mmsa_lib.errors import DataError

BASE = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
TENSORS = {
    "plain": BASE,
    "transposed": BASE.transpose(0, 2),
    "a part": BASE[1:3, :, ::2],
    "with a gradient": BASE.clone().requires_grad_(),
    "empty": torch.zeros(0, 3),
    "a number": torch.tensor(3.5),
    **{str(kind): (BASE * 10).to(kind) for kind in (torch.float16, torch.float64, torch.bfloat16)},
    **{str(kind): (BASE * 10).to(kind) for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.bool)},
    "bytes": (BASE * 10).abs().to(torch.uint8),
}


def _load(tmp_path, raw: bytes):
    (tmp_path / "a.pkl").write_bytes(raw)
    return load(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", TENSORS)
def test_a_pickled_tensor_becomes_its_array(tmp_path, name, protocol):
    tensor = TENSORS[name]
    found = _load(tmp_path, pickle.dumps({"one": tensor, "two": [tensor, 1]}, protocol))
    expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    for array in (found["one"], found["two"][0]):
        assert (array.dtype, array.shape, array.flags.writeable) == (expected.dtype, expected.shape, True)
        np.testing.assert_array_equal(array, expected)


class _Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *args):
        self._call = function, args

    def __reduce__(self):
        return self._call


def _storage(raw: bytes | None = None):
    return _Call(torch.storage._load_from_bytes, pickle_of_storage() if raw is None else raw)


def pickle_of_storage() -> bytes:
    """What ``torch.save`` makes of a storage of six numbers."""
    stream = io.BytesIO()
    torch.save(torch.arange(6.0).storage(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def _tensor(*args):
    return pickle.dumps(_Call(torch._utils._rebuild_tensor_v2, *args), 4)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2,), (6,)),
        (0, (10**9,), (0,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (True,), (1,)),
        (2**70, (2,), (1,)),
        (0, (2**62, 2**62), (0, 0)),
        (0, [2], [1]),
        (0, (1,) * 33, (1,) * 33),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(tmp_path, offset, size, stride):
    with pytest.raises(DataError, match=r"a\.pkl "):
        _load(tmp_path, _tensor(_storage(), offset, size, stride, False, None))


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_bytes_that_are_no_storage_are_refused(tmp_path):
    good = pickle_of_storage()
    forged = [
        good[:-1],
        good[:-32] + struct.pack("<q", 2**60) + good[-24:],
        good[:40],
        b"",
        good.replace(b"FloatStorage", b"QInt8Storage"),
        good.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
        b"cos\nsystem\n(S'true'\ntR." * 5,
        pickle.dumps(1) * 4,
    ]
    assert _load(tmp_path, _tensor(_storage(good), 0, (6,), (1,), False, None)).tolist() == [0, 1, 2, 3, 4, 5]
    for raw in forged:
        with pytest.raises(DataError):
            _load(tmp_path, _tensor(_storage(raw), 0, (6,), (1,), False, None))
    with pytest.raises(DataError):
        _load(tmp_path, _tensor(np.zeros(6), 0, (6,), (1,), False, None))


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_nothing_inside_a_storage_is_run(tmp_path):
    mark = tmp_path / "ran"
    evil = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    for raw in (evil, evil * 5, pickle_of_storage()[:200] + evil):
        with pytest.raises(DataError):
            _load(tmp_path, _tensor(_storage(raw), 0, (6,), (1,), False, None))
    assert not mark.exists()


def test_other_names_of_torch_stay_refused(tmp_path):
    for thing in (torch.float32, torch.nn.Linear(1, 1), torch.device("cpu"), torch.Size([1])):
        with pytest.raises(UnsafePickleError, match=r"asks for torch|makes an object"):
            _load(tmp_path, pickle.dumps({"a": thing}))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_are_told_how_to_become_a_pickle(tmp_path, zipped):
    path = tmp_path / "a.pt"
    torch.save({"train": BASE}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"a\.pt is not a pickle: .*torch\.save.*pickle\.dump\(torch\.load\("):
        load(path)
    as_told = pickle.dumps(torch.load(path, weights_only=True))
    np.testing.assert_array_equal(_load(tmp_path, as_told)["train"], BASE.numpy())
