import pytest
import torch
from records import small_record

from mmsa_lib.data import load
from mmsa_lib.data import loading as loading_module
from mmsa_lib.data.store import Frames, write_store
from mmsa_lib.data.stream import StreamedUtterances
from mmsa_lib.errors import DataError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.h5"
    write_store(small_record(), path)
    return path


def both(path, **options):
    options = {"vision": "vision3", **options}
    return load(path, in_memory=True, **options), load(path, in_memory=False, **options)


def assert_same(one, other):
    assert one.ids == other.ids
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.index, other.index)
    assert list(one.features) == list(other.features)
    for modality in one.modalities:
        for name in ("features", "valid", "observed"):
            assert torch.equal(getattr(one, name)[modality], getattr(other, name)[modality]), (modality, name)
    assert (one.tokens is None) == (other.tokens is None)
    assert one.tokens is None or torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("bucket", [True, False])
def test_batches_are_identical_to_those_from_memory(path, standardise, bucket):
    memory, disk = both(path, standardise=standardise)
    for split in memory:
        assert type(disk[split]) is StreamedUtterances
        assert disk[split].dims == memory[split].dims
        epochs = [
            list(u.batches(7, shuffle=True, generator=torch.Generator().manual_seed(5), bucket=bucket))
            for u in (memory[split], disk[split])
        ]
        assert len(epochs[0]) == len(epochs[1]) > 1
        for one, other in zip(*epochs, strict=True):
            assert_same(one, other)


def test_tokens_stay_in_memory_and_agree(path, tiny_text_model):
    memory, disk = both(path, text="tokens", text_model=tiny_text_model, max_length=20)
    for one, other in zip(memory["train"].batches(6), disk["train"].batches(6), strict=True):
        assert_same(one, other)
    assert disk["train"].data.features["text"].device.type == "cpu"


def test_a_selection_reads_its_own_rows(path):
    memory, disk = both(path)
    rows = torch.tensor([9, 2, 17])
    one, other = memory["train"].select(rows), disk["train"].select(rows)
    assert type(other) is StreamedUtterances
    assert other.lengths("audio").tolist() == one.lengths("audio").tolist()
    assert_same(next(one.batches(3)), next(other.batches(3)))
    assert_same(next(one.select(torch.tensor([2])).batches(3)), next(other.select(torch.tensor([2])).batches(3)))


def test_streamed_values_are_never_silent_zeros(path):
    _, disk = both(path)
    features = disk["train"].data.features["audio"]
    assert features.shape[0] == 20
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        features.sum().item()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batches_arrive_on_the_device(path, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    memory, disk = both(path)
    moved = disk["train"].to(device)
    assert type(moved) is StreamedUtterances
    batch = next(moved.batches(5))
    assert batch.features["audio"].device.type == device
    assert_same(next(memory["train"].batches(5)), batch.to("cpu"))


def test_a_store_that_vanishes_is_named(path):
    _, disk = both(path)
    path.unlink()
    with pytest.raises(DataError, match=r"small\.h5 is not a file"):
        next(disk["train"].batches(5))


def test_disk_is_used_where_memory_is_short(path, monkeypatch):
    free = loading_module.available_memory()
    assert free is None or 2**20 < free < 2**50
    needed = sum(u.data.features[m].nbytes for u in load(path).values() for m in ("text", "audio"))
    for free, streamed in ((2 * needed, False), (2 * needed - 2, True), (None, False)):
        monkeypatch.setattr(loading_module, "available_memory", lambda free=free: free)
        assert isinstance(load(path)["train"], StreamedUtterances) == streamed
        assert not isinstance(load(path, in_memory=True)["train"], StreamedUtterances)
    monkeypatch.setattr(loading_module, "available_memory", lambda: 10)
    with pytest.raises(DataError, match=r"small\.h5 does not fit in memory \(its features take 0\.0 GB"):
        load(path, in_memory=True)


def test_the_values_of_a_large_set_are_not_read_when_it_is_opened(path, monkeypatch):
    asked = []
    original = Frames.__getitem__
    monkeypatch.setattr(Frames, "__getitem__", lambda self, rows: asked.append(self.shape[1]) or original(self, rows))
    load(path, in_memory=False, standardise=False)
    assert asked == []
    load(path, in_memory=True)
    assert {*asked} == {4, 5}
