"""04: Self-MM's network, its generated labels, and the alignment branch."""

import torch
from page_definitions import assert_same, case, copy_weights

from mmsa_lib.data import load
from mmsa_lib.losses import coral
from mmsa_lib.methods import create
from mmsa_lib.methods.self_mm import UnimodalLabelBank
from mmsa_lib.nn.sequence import LSTMEncoder, MeanEncoder

PAGE = "04_modal_alignment"
SMALL = {"samples": [24, 6, 6], "dims": [10, 9, 8], "length": 6, "speaker_size": 6}
LITERAL = {"sequence": "lstm", "statistic": "covariance", "cov_batch": "micro", "lambda_cov": 1.0}
WIDTHS = {"fusion": 6, "text": 5, "audio": 3}


def together(page_class, method):
    """The page's network with the method's weights, and the pairs of parameters."""
    page = page_class(method.dims, method.config, method.task.center).train()
    names = {"network.encode.": "host.encoders.", "network.post.": "host.post.", "network.head.": "host.heads."}
    names |= {f"align.M.{m}.": f"branch.project.{m}.0." for m in method.modalities}
    return page, copy_weights(method, page, names)


def library(train, **config):
    method = create("modal_alignment", train.dims, train.task, **config)
    method.start_phase(method.phases[0], train)
    return method.train()


@case(PAGE, "MeanReadout", "LastState")
def readouts(page):
    x, valid = torch.randn(4, 6, 5), torch.arange(6) < torch.tensor([[6], [1], [3], [0]])
    for ours, theirs in (
        (page.MeanReadout(5, 3), MeanEncoder(5, 3)),
        (page.LastState(5, 8, 3), LSTMEncoder(5, 8, 3)),
    ):
        assert_same(ours, theirs, x, valid, weights=copy_weights(theirs, ours))


@case(PAGE, "Network", "Alignment", "ModalAlignment")
def networks(page):
    train = load("synthetic", **SMALL)["train"]
    batch = train.data
    for sequence in ("mean", "lstm"):
        method = library(train, sequence=sequence)
        ours, weights = together(page.ModalAlignment, method)

        def theirs(batch, method=method):
            output = method(batch)
            kept, told = output.representations, output.auxiliary
            private = {"fusion": kept["fusion"]} | {m: kept[f"{m}/private"] for m in method.modalities}
            return (
                private, {s: told[f"prediction/{s}"] for s in private},
                {m: kept[f"{m}/shared"] for m in method.modalities},
            )  # fmt: skip

        assert_same(ours, theirs, batch, weights=weights)


@case(PAGE, "generate", "LabelBank", "unimodal_loss")
def labels(page):
    human = torch.randn(12)
    human[3] = 0.0  # belongs to no centre
    bank, ours = UnimodalLabelBank(12, WIDTHS, bound=3.0), page.LabelBank(human, WIDTHS, 3.0)
    bank.initialise(human)
    for epoch in (1, 2, 3):
        for rows in torch.randperm(12).split(5):
            features = {s: torch.randn(len(rows), d) for s, d in WIDTHS.items()}
            if epoch > 1:
                assert_same(
                    lambda F, y: page.generate(F, ours.C, y), bank.generate, features, human[rows], gradients=False
                )
            bank.update(epoch, rows, features, human[rows])
            ours.update(epoch, rows, features)
    for kept, other in ((ours.y, bank.labels), (ours.F, bank.features), (ours.C, bank.centers)):
        for s in WIDTHS:
            torch.testing.assert_close(kept[s], other[s], rtol=1e-4, atol=1e-5)


@case(PAGE, "covariance", "correlation", "distance")
def statistics(page):
    x, y = torch.randn(9, 4), torch.randn(9, 4)
    assert_same(lambda x, y: page.distance(page.covariance(x), page.covariance(y)), coral.covariance_alignment, x, y)
    assert_same(lambda x: page.correlation(page.covariance(x)), lambda x: coral.correlation(coral.covariance(x)), x)


@case(PAGE, "ModalAlignment", "LabelBank", "terms")
def steps(page):
    """Losses, gradients and generated labels of training steps, in each way to take a covariance."""
    train = load("synthetic", **SMALL)["train"]
    for config in ({}, {"cov_batch": "ema"}, {"cov_batch": "micro"}, LITERAL):
        method = library(train, update_epochs=2, batch_size=6, **config)
        ours, weights = together(page.ModalAlignment, method)
        bank = page.LabelBank(train.labels - train.task.center, ours.network.widths, train.task.bound)
        method.apply_gradients = lambda optimizers: None
        for epoch in (1, 2, 3):
            method.start_epoch(epoch)
            group, logs = list(train.batches(6))[:2], []
            torch.manual_seed(epoch)
            for batch in group:
                logs.append(method.training_step(batch, {}))
            ours.zero_grad()
            torch.manual_seed(epoch)
            found = page.terms(ours, bank, group, epoch)
            sum(found.values()).backward()
            total = sum(log.get("loss/covariance_audio-vision", 0.0) for log in logs)
            times = 2 if method.config.cov_batch == "accumulated" else 1
            torch.testing.assert_close(float(found["L3"].detach()), times * total, rtol=1e-3, atol=1e-7)
            for own, other in weights:
                if other.grad is not None:
                    torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)
            for s, label in bank.y.items():
                torch.testing.assert_close(label, method.host.bank.labels[s], rtol=1e-3, atol=1e-4)
