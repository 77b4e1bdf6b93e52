from __future__ import annotations

import pytest
import torch
from torch import nn

from mmsa_lib.errors import DataError
from mmsa_lib.training.tensors import load_into, read_tensors, save_tensors


def test_round_trip_with_shared_and_transposed_tensors(tmp_path):
    weight = torch.randn(3, 4)
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": weight, "tied": weight, "turned": weight.T}, {"note": "ä"})
    tensors, metadata = read_tensors(path)
    assert torch.equal(tensors["tied"], weight)
    assert torch.equal(tensors["turned"], weight.T)
    assert metadata == {"note": "ä"}


def test_equal_tensors_give_equal_bytes_whatever_the_order_of_their_metadata(tmp_path):
    tensors = {"a": torch.ones(2), "ä": torch.zeros(1, dtype=torch.int64)}
    metadata = dict.fromkeys("zyxwvutsrqponmlk", 'text with "quotes" and ü')
    for number in range(4):
        save_tensors(tmp_path / f"{number}.safetensors", tensors, dict(sorted(metadata.items(), reverse=number % 2)))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    found, read = read_tensors(tmp_path / "3.safetensors")
    assert read == metadata
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_unreadable_files_name_the_remedy(tmp_path):
    with pytest.raises(DataError, match="repeat the run"):
        read_tensors(tmp_path / "missing.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not tensors at all")
    with pytest.raises(DataError, match=r"broken\.safetensors"):
        read_tensors(broken)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        save_tensors(tmp_path / "file" / "x.safetensors", {"a": torch.ones(1)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_load_into_needs_every_parameter_but_not_every_buffer():
    class Net(nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.layer = nn.Linear(2, 1)
            self.register_buffer("bank", torch.zeros(rows))

    source, target = Net(5), Net(0)
    load_into(target, source.state_dict())
    assert torch.equal(target.layer.weight, source.layer.weight)
    state = source.state_dict()
    del state["layer.bias"]
    with pytest.raises(DataError, match=r"layer\.bias should have shape \(1,\), the file holds nothing"):
        load_into(target, state)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int8, torch.complex64])
def test_load_into_refuses_weights_of_another_type(kind):
    layer = nn.Linear(2, 1)
    state = {**layer.state_dict(), "weight": torch.ones(1, 2, dtype=kind)}
    with pytest.raises(DataError, match=r"weight should be torch\.float32, the file holds"):
        load_into(layer, state)
