"""The restricted unpickler: plain trees and tensors come back exactly, and nothing else comes back at all."""

import collections
import copyreg
import fractions
import gzip
import io
import os
import pickle
import random
import struct
import subprocess
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from damaged_files import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layout_files import Call

from mmsa_lib.data.sources.safe_pickle import UnsafePickleError, load, load_npz
from mmsa_lib.errors import DataError

TREE = {
    "c order": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran order": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "permuted": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "objects": np.asfortranarray(np.array([["x", None], [{"k": np.float32(2)}, (1, 2)]], dtype=object)),
    "texts": np.array(["ab", "schön", "我"]),
    "byte strings": np.array([b"ab", b"c"]),
    "empty strings": np.array(["", ""]),
    "no rows": np.zeros((0, 3), np.float32),
    "no dimension": np.array(5.0),
    "booleans": np.array([True, False]),
    "not finite": np.array([-np.inf, np.nan, np.inf]),
    "scalar": np.int64(3),
    "numpy text": np.str_("hé"),
    "builtins": [1, 2.5, None, True, 1j, "x", b"\xff", b"", bytearray(b"x"), {1, 2}, frozenset([3]), (), 10**30],
}


def _save(folder: Path, content: bytes, name: str = "file.pkl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _read(folder: Path, content: bytes):
    return load(_save(folder, content))


def _load_or_error(path: Path, read=load):
    """What is read, or the error, which must be one line that begins with the path."""
    try:
        return read(path)
    except DataError as error:
        outcome = error
    assert str(outcome).removeprefix("cannot read ").startswith(str(path))
    assert "\n" not in str(outcome)
    return outcome


def _load_traced(path: Path, read=load):
    """The outcome, and the largest memory that it took in bytes."""
    tracemalloc.start()
    try:
        return _load_or_error(path, read), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _assert_same(loaded, original):
    assert type(loaded) is type(original)
    if isinstance(original, np.ndarray):
        assert loaded.dtype == original.dtype.newbyteorder("=")
        assert loaded.flags.writeable
        np.testing.assert_array_equal(loaded, original)
    else:
        assert loaded == original


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_trees_come_back_exactly(tmp_path, protocol):
    loaded = _read(tmp_path, pickle.dumps(TREE, protocol))
    assert list(loaded) == list(TREE)
    for name in TREE:
        _assert_same(loaded[name], TREE[name])


@given(
    array=hnp.arrays(
        dtype=hnp.boolean_dtypes()
        | hnp.integer_dtypes()
        | hnp.floating_dtypes()
        | hnp.unicode_string_dtypes(max_len=4),
        shape=hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
    ),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    fortran=st.booleans(),
)
@settings(max_examples=150)
def test_any_array_comes_back_exactly(tmp_path_factory, array, protocol, fortran):
    array = np.asfortranarray(array).reshape(array.shape) if fortran else array
    loaded = load(_save(tmp_path_factory.mktemp("pickle"), pickle.dumps(array, protocol)))
    _assert_same(loaded, array)


def test_byte_order_becomes_the_machines_own(tmp_path):
    loaded = _read(tmp_path, pickle.dumps(np.arange(3, dtype=">f8")))
    assert loaded.dtype == np.float64
    assert loaded.tolist() == [0, 1, 2]


def test_shared_parts_stay_shared(tmp_path):
    part = np.arange(3.0)
    first, second = _read(tmp_path, pickle.dumps([part, part]))
    assert first is second


def test_ordered_dict_becomes_dict(tmp_path):
    loaded = _read(tmp_path, pickle.dumps(collections.OrderedDict(b=1, a=2)))
    assert type(loaded) is dict
    assert list(loaded) == ["b", "a"]


@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_python_2_pickles_with_old_and_new_numpy_names(tmp_path, core):
    # protocol 2 as Python 2 writes it: byte strings where Python 3 has text and bytes
    raw = struct.pack("<2d", 1.5, -2.0)
    content = (
        b"\x80\x02}(U\x01a"
        + b"c" + core + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89U" + bytes([len(raw)]) + raw + b"tb"
        + b"U\x01tU\x02\xe9!u."
    )  # fmt: skip
    loaded = _read(tmp_path, content)
    assert loaded["t"] == "é!"
    np.testing.assert_array_equal(loaded["a"], [1.5, -2.0])


# ---- attacks -------------------------------------------------------------------------------------------------------


class _CallLater:
    """Pickles to an instance whose ``__setstate__`` a pickle names; NEWOBJ_EX in protocol 4."""

    def __getnewargs_ex__(self):
        return (), {"x": 1}

    def __new__(cls, x=0):
        return super().__new__(cls)


def _attacks(witness: Path) -> dict[str, bytes]:
    """Pickles that would create the file ``witness`` or reach what could."""
    command, path = f"touch {witness}".encode(), str(witness)
    shell = {p: pickle.dumps({"audio": [np.zeros(2), Call(os.system, f"touch {witness}")]}, p) for p in range(6)}
    return {
        **{f"os.system, protocol {p}": content for p, content in shell.items()},
        "eval": pickle.dumps(Call(eval, f"open({path!r}, 'w')")),
        "exec": pickle.dumps(Call(exec, f"open({path!r}, 'w')")),
        "open": pickle.dumps(Call(open, path, "w")),
        "subprocess": pickle.dumps(Call(subprocess.Popen, ["touch", path])),
        "getattr chain": pickle.dumps(Call(getattr, Call(__import__, "os"), "system")),
        "numpy.load": pickle.dumps(Call(np.load, path)),
        "numpy.save": pickle.dumps(Call(np.save, path, 1)),
        "numpy.vectorize": pickle.dumps(np.vectorize(len)),
        "object array": pickle.dumps(np.array([Call(os.system, f"touch {witness}")], dtype=object)),
        "INST": b"(S'" + command + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command + b"'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nU" + bytes([len(command)]) + command + b"\x85\x81.",
        "NEWOBJ_EX": pickle.dumps(_CallLater(), 4),
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0entypes.ndarray\x93.".replace(b"\x0e", bytes([14])),
        "dotted path below an allowed name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        "numpy as a road to os": b"cnumpy.core.multiarray\nos\n.",
        "codec that unpacks": b"c_codecs\nencode\n(Vabc\nVzlib\ntR.",
        "codec of bytes": b"\x80\x03c_codecs\nencode\nC\x03abcU\x06latin1\x86R.",
        "codecs module": b"ccodecs\ndecode\n(Vabc\nVrot13\ntR.",
        "state of a builder": b"\x80\x02cnumpy\ndtype\n}U\x06_buildU\x01xsb.",
        "state of the array marker": b"\x80\x02cnumpy\nndarray\nN}U\x01xU\x01ys\x86b.",
        "state of a builder's slots": b"\x80\x02c_codecs\nencode\nN}U\x06_buildcnumpy\ndtype\ns\x86b.",
        "a callable left as data": b"]cnumpy\ndtype\na.",
        "a dtype left as data": pickle.dumps(np.dtype("f4")),
        "array of another class": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        "call of the array class": b"cnumpy\nndarray\n(I3\ntR.",
        "bytes of a size": b"\x80\x03cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        "bytearray of a size": b"\x80\x03cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        "set of a text": b"\x80\x03cbuiltins\nset\nX\x03\x00\x00\x00abc\x85R.",
        "complex of a text": b"\x80\x03cbuiltins\ncomplex\nX\x02\x00\x00\x001j\x85R.",
        "persistent id": b"Pabc\n.",
        "binary persistent id": b"\x80\x02U\x01aQ.",
        "extension": b"\x80\x02\x82\xf0.",
        "self-reference": b"]q\x00h\x00a.",
        "structured type": pickle.dumps(np.zeros(2, dtype=[("a", "f4")])),
        "dates": pickle.dumps(np.zeros(2, dtype="M8[s]")),
        "masked array": pickle.dumps(np.ma.masked_array([1, 2], [0, 1])),
        "pandas": pickle.dumps(pd.DataFrame({"a": [1]})),
        "too deep": b"(" * 200 + b"t" * 200 + b".",
        "a class of the standard library": pickle.dumps(fractions.Fraction(1, 2)),
    }


ATTACKS = sorted(_attacks(Path("witness")))


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_and_nothing_runs(tmp_path, attack):
    witness = tmp_path / "witness"
    assert isinstance(_load_or_error(_save(tmp_path, _attacks(witness)[attack])), UnsafePickleError)
    assert not witness.exists()


@pytest.mark.parametrize("attack", ["os.system, protocol 4", "eval", "INST", "OBJ"])
def test_the_attacks_are_real(tmp_path, attack):
    witness = tmp_path / "witness"
    pickle.loads(_attacks(witness)[attack])
    assert witness.exists()


def test_the_message_names_what_was_asked_for(tmp_path):
    with pytest.raises(UnsafePickleError, match=r"asks for (posix|nt)\.system"):
        _read(tmp_path, pickle.dumps(Call(os.system, "true")))


def test_cached_extensions_are_refused(tmp_path):
    copyreg.add_extension("os", "system", 0xF0)
    try:
        content = b"\x80\x02\x82\xf0U\x04true\x85R."
        assert pickle.loads(content) == 0  # now the code is in the interpreter's cache of extensions
        with pytest.raises(UnsafePickleError, match="extension"):
            _read(tmp_path, content)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


def test_a_forged_object_type_does_not_turn_bytes_into_pointers(tmp_path):
    # the state clears the flags of the object type, so that numpy's own reconstructor would take raw bytes as pointers
    content = (
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        b"(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"
        b"(K\x03X\x01\x00\x00\x00|NNNK\x08K\x08K\x00tb\x89C\x08AAAAAAAAtb."
    )
    with pytest.raises(UnsafePickleError, match="objects"):
        _read(tmp_path, content)


def _nested(step, leaf, depth=60):
    """A tree whose parts are shared: ``depth`` small steps, ``2 ** depth`` leaves for whoever walks over it."""
    tree = leaf
    for _ in range(depth):
        tree = step(tree)
    return pickle.dumps(tree)


def _many(call, times=2000):
    return b"(" + call * times + b"l."


def _colliding(start, each, end):
    """Integers that have all the hash 0, as a pickle; making the dict would take the time that is meant to be saved."""
    keys = (pickle.dumps(k * (2**61 - 1), 2)[2:-1] for k in range(1, 30_000))
    return b"\x80\x04" + start + b"".join(key + each for key in keys) + end + b"."


_TEXT = b"\x80\x02X" + struct.pack("<I", 4_000_000) + b"a" * 4_000_000 + b"q\x000"  # under key 0 of the memo
_BYTES = b"\x80\x03B" + _TEXT[3:]
_LATIN1 = b"U\x06latin1q\x010"  # under key 1
_F8 = b"cnumpy\ndtype\nU\x02f8\x85Rq\x010"
_S4M = b"cnumpy\ndtype\nU\x08S4000000\x85Rq\x010"
_PAIRS = _nested(lambda part: (part, part), 1)[2:-1]
_LIST = b"\x80\x02](" + b"N" * 500_000 + b"eq\x000"

BOMBS = {
    "nested shared lists": lambda: _nested(lambda part: [part, part], "leaf"),
    "nested shared tuples": lambda: _nested(lambda part: (part, part), "leaf"),
    "shared tuples as a key": lambda: b"\x80\x04}" + _PAIRS + b"Ns.",
    "shared tuples in a set": lambda: b"\x80\x04\x8f(" + _PAIRS + b"\x90.",
    "shared tuples in a frozenset": lambda: b"\x80\x04(" + _PAIRS + b"\x91.",
    "nested shared dicts": lambda: _nested(lambda part: {"a": part, "b": part}, 1),
    "nested shared object arrays": lambda: _nested(lambda part: np.array([part, part, None], dtype=object), 1, 30),
    "keys with one hash": lambda: _colliding(b"}(", b"N", b"u"),
    "keys with one hash, one by one": lambda: _colliding(b"}", b"Ns", b""),
    "a set of one hash": lambda: _colliding(b"\x8f(", b"", b"\x90"),
    "a frozenset of one hash": lambda: _colliding(b"(", b"", b"\x91"),
    "a text many times": lambda: _TEXT + _many(b"h\x00"),
    "encoded many times": lambda: _TEXT + _LATIN1 + _many(b"c_codecs\nencode\nh\x00h\x01\x86R"),
    "bytearrays": lambda: _BYTES + _many(b"cbuiltins\nbytearray\nh\x00\x85R"),
    "scalars": lambda: _BYTES + _S4M + _many(b"cnumpy.core.multiarray\nscalar\nh\x01h\x00\x86R"),
    "letters as arguments": lambda: _TEXT + _many(b"cbuiltins\nset\nh\x00R"),
    "sets of one list": lambda: _LIST + _many(b"cbuiltins\nset\nh\x00\x85R"),
    "arguments of one list": lambda: _LIST + _many(b"cbuiltins\nset\nh\x00R"),
    "arrays over the same bytes": lambda: (
        _BYTES + _F8 + _many(b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01J\x20\xa1\x07\x00\x85U\x01CtR")
    ),
    "one array many times": lambda: pickle.dumps([np.zeros(500_000)] * 2000),
    "empty strings": lambda: b"\x80\x02cnumpy\ndtype\nU\x02S0\x85Rq\x010" + _many(
        b"cnumpy.core.numeric\n_frombuffer\n(U\x00h\x01J\x80\x96\x98\x00\x85U\x01CtR", 100
    ),
    "deep": lambda: b"(" * 50_000 + b"t" * 50_000 + b".",
    "deep lists": lambda: b"]" * 50_000 + b"a" * 49_999 + b".",
    "a number of a million digits": lambda: b"\x80\x02\x8b" + struct.pack("<I", 400_000) + b"\x7f" * 400_000 + b".",
    "a number of a million letters": lambda: b"L" + b"9" * 1_000_000 + b"L\n.",
    "sorting of shared tuples": lambda: (
        b"\x80\x03C\x08aaaaaaaaq\x000" + _F8 + b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01K\x01\x85U\x01K"
        + _PAIRS + _PAIRS + b"\x86tR."
    ),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_work_and_memory_are_bounded_by_the_size_of_the_file(tmp_path, bomb):
    path = _save(tmp_path, BOMBS[bomb]())
    start = time.process_time()
    outcome, peak = _load_traced(path)
    assert isinstance(outcome, DataError)
    if not bomb.startswith(("deep", "letters", "arguments", "a number", "sorting")):
        assert "again and again" in str(outcome)
    assert peak < 2**29
    assert time.process_time() - start < 20  # under tracing


def test_what_honest_files_share_is_read(tmp_path):
    missing = np.zeros((50, 20), np.float32)
    tree = {"audio": [missing] * 2000, "id": ["video1"] * 20_000, "train": {"x": [1]}}
    tree["test"] = tree["train"]
    loaded = _read(tmp_path, pickle.dumps(tree))
    assert loaded["audio"][0] is loaded["audio"][1999]
    assert loaded["id"] == tree["id"]
    assert loaded["test"] is loaded["train"]


@pytest.mark.parametrize("content", [b"\x80\x04}(K\x01\x90.", b"\x80\x04\x8fK\x01K\x02s."])
def test_items_of_a_set_in_a_dict_and_keys_in_a_set_are_refused(tmp_path, content):
    with pytest.raises(DataError, match="keys"):
        _read(tmp_path, content)


@pytest.mark.parametrize("rest", [b".", b"\0" * 100, pickle.dumps([1])])
def test_bytes_behind_the_end_are_refused(tmp_path, rest):
    for protocol in (2, 5):
        with pytest.raises(DataError, match="something follows the end"):
            _read(tmp_path, pickle.dumps([1, np.zeros(3)], protocol) + rest)


def test_long_doubles_are_refused(tmp_path):
    for value in (np.zeros(2, np.longdouble), np.longdouble(1) / 3, np.zeros(2, np.clongdouble)):
        if value.dtype.itemsize in (8, 16) and value.dtype.kind + str(value.dtype.itemsize) in ("f8", "c16"):
            continue  # this machine has none
        with pytest.raises(UnsafePickleError, match="array of type"):
            _read(tmp_path, pickle.dumps([value]))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",  # bytearray
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",  # bytes
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",  # frame
        b"\x80\x02N\x72" + b"\xff\xff\xff\xff" + b"0N.",  # memo position: legal, and free
    ],
)
def test_forged_lengths_reserve_no_memory(tmp_path, content):
    outcome, peak = _load_traced(_save(tmp_path, content))
    assert outcome is None or "cut short" in str(outcome)
    assert peak < 10_000_000


@given(data=st.data())
@settings(max_examples=150)
def test_damaged_files_end_in_one_line(tmp_path_factory, data):
    content = bytearray(pickle.dumps(TREE, data.draw(st.sampled_from([2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _load_or_error(_save(tmp_path_factory.mktemp("pickle"), bytes(content)))


@given(content=st.binary(max_size=200))
@settings(max_examples=150)
def test_random_bytes_end_in_one_line(tmp_path_factory, content):
    _load_or_error(_save(tmp_path_factory.mktemp("pickle"), content))


# ---- files that are something else ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (pickle.dumps(TREE)[:-40], "cut short"),
        (pickle.dumps(TREE)[:20], "cut short"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (b"PK\x03\x04abc", "zip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "web page"),
        (b"<HTML><head>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "Git LFS pointer"),
        (b"\x00" * 600, "did not finish"),
        (b"id,label\nx,1\n", "not a pickle"),
    ],
)
def test_other_files_are_named(tmp_path, content, said):
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path, content)
    assert not isinstance(caught.value, UnsafePickleError)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        load(tmp_path / "nothing.pkl")
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)


# ---- npz -----------------------------------------------------------------------------------------------------------


def test_npz_with_objects_and_numbers(tmp_path):
    corpus = {"a_1": {"emo": 0, "val": -0.4}, "a_2": {"emo": 0, "val": 0.6}}
    path = tmp_path / "label.npz"
    numbers = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez_compressed(path, train_corpus=corpus, numbers=numbers, names=np.array(["x", None], dtype=object))
    loaded = load_npz(path)
    assert loaded["train_corpus"] == corpus
    np.testing.assert_array_equal(loaded["numbers"], numbers)
    assert loaded["names"].tolist() == ["x", None]


def test_npz_with_code_is_refused(tmp_path):
    witness, path = tmp_path / "witness", tmp_path / "label.npz"
    np.savez(path, train_corpus=np.array([Call(os.system, f"touch {witness}")], dtype=object))
    with pytest.raises(UnsafePickleError, match="train_corpus"):
        load_npz(path)
    assert not witness.exists()


def _archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _announcing(shape: tuple, content: bytes = b"") -> bytes:
    """An ``.npy`` file whose header announces ``shape``."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def _bomb(path: Path):
    """335 MB of zeros in a third of a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as stream:
        stream.write(_announcing((40 * 2**20,)))
        for _ in range(320):
            stream.write(bytes(2**20))


def _twice(path: Path):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings(action="ignore"):
        for value in (1.0, 2.0):
            archive.writestr("labels.npy", _npy(np.full(3, value)))


def _locked(path: Path):
    _archive(path, {"a.npy": _npy(np.zeros(3))})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def _broken_stream(path: Path):
    _archive(path, {"a.npy": _npy(np.arange(1000.0))})
    content = path.read_bytes()
    path.write_bytes(content[:60] + b"\xff" * 30 + content[90:])


UNFIT = {
    "a member twice": (_twice, "holds 'labels' twice"),
    "with and without its ending": ({"a": _npy(np.zeros(1)), "a.npy": _npy(np.ones(1))}, "holds 'a' twice"),
    "zeros": (_bomb, "announces 0.3 GB and has"),
    "packed by bzip2": (lambda path: _archive(path, {"a.npy": bytes(2**20)}, zipfile.ZIP_BZIP2), "unusual way"),
    "packed by lzma": (lambda path: _archive(path, {"a.npy": bytes(2**20)}, zipfile.ZIP_LZMA), "unusual way"),
    "locked": (_locked, "password"),
    "a broken stream": (_broken_stream, "is damaged"),
    "no archive": (lambda path: path.write_bytes(b"abc"), "is not an .npz archive"),
    "no array": ({"readme.txt": b"hello"}, "not a numpy array"),
    "a header without values": ({"a.npy": _announcing((10**12,))}, "0 bytes do not make"),
    "values left over": ({"a.npy": _announcing((1,), bytes(16))}, "16 bytes do not make"),
    "a cut header": ({"a.npy": _npy(np.zeros(3))[:40]}, "not a numpy array"),
    "a header of code": ({"a.npy": b"\x93NUMPY\x01\x00\x20\x00" + b"(" * 31 + b"\n"}, "not a numpy array"),
    "a pickle of zeros": ({"a.npy": _npy(np.array([None]))[:128] + b"(" * 2**23}, "announces 8 MB and stores"),
    "long doubles": ({"a.npy": _npy(np.zeros(2, np.clongdouble))}, "only numbers"),
    "dates": ({"a.npy": _npy(np.zeros(2, "M8[s]"))}, "only numbers"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_archive_is_refused_in_one_line(tmp_path, name):
    make, said = UNFIT[name]
    path = tmp_path / "a.npz"
    make(path) if callable(make) else _archive(path, make)
    outcome, peak = _load_traced(path, load_npz)
    assert isinstance(outcome, DataError)
    assert said in str(outcome)
    assert peak < 2**27


def test_well_packed_archives_are_read(tmp_path):
    values = np.tile(np.arange(100, dtype=np.float32), (20_000, 1))
    values[:, 3:] = 0
    np.savez_compressed(tmp_path / "a.npz", values=values, empty=np.zeros((0, 3)))
    loaded = load_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded["values"], values)
    assert loaded["empty"].shape == (0, 3)


def test_damaged_archives_are_read_as_they_were_or_refused(tmp_path):
    original = {"values": np.arange(60.0).reshape(20, 3), "ids": np.array([f"v{i}" for i in range(20)], dtype=object)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "good.npz", **original)
        whole = (tmp_path / "good.npz").read_bytes()
        generator = random.Random(3)
        for _ in range(150):
            path = _save(tmp_path, damaged(whole, generator), "damaged.npz")
            outcome = _load_or_error(path, load_npz)
            if not isinstance(outcome, DataError):
                assert all(np.array_equal(outcome[name], original[name]) for name in outcome)


# ---- tensors -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", TENSORS)
def test_a_pickled_tensor_becomes_its_array(tmp_path, name, protocol):
    tensor = TENSORS[name]
    found = _read(tmp_path, pickle.dumps({"one": tensor, "two": [tensor, 1]}, protocol))
    expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    for array in (found["one"], found["two"][0]):
        assert (array.dtype, array.shape, array.flags.writeable) == (expected.dtype, expected.shape, True)
        np.testing.assert_array_equal(array, expected)


def _storage(raw: bytes | None = None):
    return Call(torch.storage._load_from_bytes, pickle_of_storage() if raw is None else raw)


def pickle_of_storage() -> bytes:
    """What ``torch.save`` makes of a storage of six numbers."""
    stream = io.BytesIO()
    torch.save(torch.arange(6.0).storage(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def _tensor(*args):
    return pickle.dumps(Call(torch._utils._rebuild_tensor_v2, *args), 4)


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
    with pytest.raises(DataError, match=r"file\.pkl "):
        _read(tmp_path, _tensor(_storage(), offset, size, stride, False, None))


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
    assert _read(tmp_path, _tensor(_storage(good), 0, (6,), (1,), False, None)).tolist() == [0, 1, 2, 3, 4, 5]
    for raw in forged:
        with pytest.raises(DataError):
            _read(tmp_path, _tensor(_storage(raw), 0, (6,), (1,), False, None))
    with pytest.raises(DataError):
        _read(tmp_path, _tensor(np.zeros(6), 0, (6,), (1,), False, None))


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_nothing_inside_a_storage_is_run(tmp_path):
    mark = tmp_path / "ran"
    evil = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    for raw in (evil, evil * 5, pickle_of_storage()[:200] + evil):
        with pytest.raises(DataError):
            _read(tmp_path, _tensor(_storage(raw), 0, (6,), (1,), False, None))
    assert not mark.exists()


def test_other_names_of_torch_stay_refused(tmp_path):
    for thing in (torch.float32, torch.nn.Linear(1, 1), torch.device("cpu"), torch.Size([1])):
        with pytest.raises(UnsafePickleError, match=r"asks for torch|makes an object"):
            _read(tmp_path, pickle.dumps({"a": thing}))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_are_told_how_to_become_a_pickle(tmp_path, zipped):
    path = tmp_path / "a.pt"
    torch.save({"train": BASE}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"a\.pt is not a pickle: .*torch\.save.*pickle\.dump\(torch\.load\("):
        load(path)
    as_told = pickle.dumps(torch.load(path, weights_only=True))
    np.testing.assert_array_equal(_read(tmp_path, as_told)["train"], BASE.numpy())


@pytest.mark.real_data
def test_real_pickles_of_the_field(mirror):
    originals = mirror / "cmu-mosi" / "original"
    loaded = load(originals / "CMUMOSI_features_raw_2way.pkl")
    assert sum(len(ids) for ids in loaded[0].values()) == 2199
    corpus = load_npz(originals / "merbench_label.npz")
    assert [len(corpus[f"{split}_corpus"]) for split in ("train", "val", "test")] == [1284, 229, 686]
