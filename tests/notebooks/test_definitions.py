"""Classes and functions that notebooks define equal the library's: outputs, losses and gradients."""

import nbformat
import pytest
import torch
from page_definitions import all_cases, assert_same, committed, copy_weights, load, modules_of
from torch import nn

from mmsa_lib.nn.routing import DynamicRouting

CASES = all_cases()


@pytest.mark.parametrize(
    ("notebook", "names", "given", "check"), CASES, ids=[f"{case[0]}-{case[3].__name__}" for case in CASES]
)
def test_a_page_defines_what_the_library_does(notebook, names, given, check):
    torch.manual_seed(0)
    check(load(committed(notebook), *names, **given))


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES}))
def test_every_network_of_a_page_is_compared(name):
    compared = {known for notebook, names, _, _ in CASES if notebook == name for known in names}
    assert modules_of(committed(name)) <= compared


# --- The loader -----------------------------------------------------------------------------------------------------

CELLS = [
    "import torch\nfrom torch import nn\n\nexpensive = open('no such file')",
    "d_c: int = 4\nbatch = torch.randn(3)",
    """
def squash(s):  # same direction, length below 1
    n2 = s.square().sum(-1, keepdim=True)
    return n2 / (1 + n2) * s / (n2 + 1e-8).sqrt()
""",
    """
class Routing(nn.Module):
    def __init__(self, d, K, rounds=3):
        super().__init__()
        self.rounds, self.W = rounds, nn.Parameter(torch.randn(K, d, d_c) * d**-0.5)

    def forward(self, h, valid):
        votes = torch.einsum("btd,kdc->btkc", h, self.W)
        b = h.new_zeros(*h.shape[:2], len(self.W))
        for _ in range(self.rounds):
            c = b.softmax(-1) * valid[..., None]
            v = squash(torch.einsum("btk,btkc->bkc", c, votes))
            b = (b + torch.einsum("bkc,btkc->btk", v, votes)).detach()
        return v, c
""",
    "%matplotlib inline\nrouting = Routing(5, 3)",
    "def mean_of_batch():\n    return batch.mean()",
]


@pytest.fixture
def notebook():
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    return book


def test_a_definition_is_run_with_what_it_needs_and_nothing_else(notebook):
    page = load(notebook, "Routing")
    assert {"Routing", "squash", "nn", "torch", "d_c"} <= set(vars(page))
    assert not {"expensive", "batch", "routing", "mean_of_batch"} & set(vars(page))


def test_a_value_that_the_page_computes_must_be_given(notebook):
    with pytest.raises(LookupError, match="cell 1 computes batch"):
        load(notebook, "mean_of_batch")
    assert load(notebook, "mean_of_batch", batch=torch.ones(3)).mean_of_batch() == 1
    with pytest.raises(LookupError, match="does not define Rooting"):
        load(notebook, "Rooting")


def routing_and_library(notebook, rounds=3):
    torch.manual_seed(0)
    library, page = DynamicRouting(5, 3, 4), load(notebook, "Routing").Routing(5, 3, rounds)
    words, valid = torch.randn(2, 7, 5), torch.arange(7) < torch.tensor([[7], [4]])
    weights = copy_weights(library, page, {"W": "weight"})
    assert_same(page, lambda h, v: library(h, v, return_coupling=True), words, valid, weights=weights)


def test_equal_definitions_pass(notebook):
    routing_and_library(notebook)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [("n2 + 1e-8", "n2 + 1e-1", "output 0"), (".detach()", "", "gradient 0"), ("* valid[..., None]", "", "output")],
)
def test_a_slip_in_a_definition_is_seen(notebook, old, new, where):
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    with pytest.raises(AssertionError, match=where):
        routing_and_library(notebook)


def test_a_gradient_that_stops_in_a_weight_only_is_seen(notebook):
    notebook.cells[3].source = notebook.cells[3].source.replace("h, self.W)", "h, self.W.detach())")
    with pytest.raises(AssertionError, match="gradient 1"):
        routing_and_library(notebook)


def test_weights_are_copied_in_order_or_by_name():
    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3)) for _ in range(2))
    weights = copy_weights(one, other)
    assert_same(other, one, torch.randn(4, 2), weights=weights)
    pairs = copy_weights(one, nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 3)}), {"a.": "0.", "b.": "2."})
    assert all(torch.equal(*pair) for pair in pairs)
    with pytest.raises(LookupError, match=r"no partner for 2\.bias, 2\.weight"):
        copy_weights(one, nn.Linear(2, 3), {"": "0."})
    with pytest.raises(LookupError, match=r"a\.weight \(3, 3\) is not 0\.weight \(3, 2\)"):
        copy_weights(one, nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}), {"a.": "0.", "b.": "2."})
