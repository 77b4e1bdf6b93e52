"""Notebook 06: the loop on the page trains as the library does."""

import pytest
import torch
from page_definitions import case

from mmsa_lib.data import load
from mmsa_lib.methods import create
from mmsa_lib.nn.adam import Adam
from mmsa_lib.training import fit, seed_everything

SMALL = {"samples": [48, 24, 24], "dims": [12, 8, 8], "length": 6}


def fresh(data, method, **config):
    seed_everything(3)
    model = create(method, data["train"].dims, data["train"].task, **config)
    seed_everything(3)
    return model


@case("06_train", "step")
def one_step(page):
    data = load("synthetic", **SMALL)
    batch = next(data["train"].batches(16))
    ours = fresh(data, "misa")  # four terms
    terms = page.step(ours, batch, torch.optim.Adam(ours.parameter_groups(), fused=True))
    library = fresh(data, "misa")
    logged = library.training_step(batch, {"all": Adam(library.parameter_groups(), fused=True)})
    assert {f"loss/{name}": value for name, value in terms.items()} == pytest.approx(
        {name: value for name, value in logged.items() if name.startswith("loss/") and name != "loss/total"}
    )
    assert_equal_weights(ours, library)


@case("06_train", "train_loop")
def whole_run(page):
    data = load("synthetic", **SMALL)
    ours, library = (fresh(data, "early_fusion", learning_rate=0.03) for _ in range(2))
    sizes = {"batch_size": 16, "max_epochs": 30, "patience": 2}
    curve = page.train_loop(ours, data["train"], data["valid"], 3, **sizes)
    result = fit(library, data["train"], data["valid"], settings=sizes, seed=3, progress="none")
    found = result.history.query("split == 'valid'")["value"]
    assert curve["validation"].tolist() == pytest.approx(found.tolist())
    assert int(curve["validation"].idxmin()) == result.best_epoch < len(curve)  # the last weights are not the best
    assert_equal_weights(ours, library)
    assert page.validate(ours, data["valid"]) == pytest.approx(result.best_value)


@case("06_train", "measure", build=None, train=None, valid=None, seed=3)
def measured_on_the_processor(page):
    """The cell that measures a GPU runs here as well, on what is here."""
    data = load("synthetic", **SMALL)
    page.train, page.valid, page.build = data["train"], data["valid"], lambda: fresh(data, "text_only")
    seconds, memory = page.measure("cpu", "float32").values()
    assert seconds > 0
    assert memory != memory  # not a number: only a GPU counts it


def assert_equal_weights(ours, library):
    torch.testing.assert_close(dict(ours.named_parameters()), dict(library.named_parameters()))
