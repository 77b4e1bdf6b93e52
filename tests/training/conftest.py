"""A small method and small splits with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.task import regression
from mmsa_lib.methods.base import Method, Output


class TinyMethod(Method):
    """Masked mean of each modality, dropout, one linear layer; counts its steps in a buffer."""

    id = "tiny"

    def __init__(self, dims, task, config):
        super().__init__(dims, task, config)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(sum(self.dims.values()), task.outputs)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch):
        means = [
            (batch.features[m] * batch.observed[m].unsqueeze(-1)).sum(1) / batch.valid[m].sum(1, keepdim=True)
            for m in self.modalities
        ]
        fused = torch.cat(means, dim=-1)
        return Output(self.task.shape_prediction(self.head(self.dropout(fused))), {"fusion/feature": fused})

    def training_step(self, batch, optimizers):
        self.steps += 1
        return super().training_step(batch, optimizers)


def make_split(split: str, count: int, seed: int) -> Utterances:
    """``count`` utterances with text (5 wide) and audio (3 wide), whose label is a linear function of the means."""
    generator = torch.Generator().manual_seed(seed)
    length = 6
    lengths = torch.randint(1, length + 1, (count,), generator=generator)
    valid = torch.arange(length) < lengths.unsqueeze(1)
    features = {
        "text": torch.randn(count, length, 5, generator=generator) * valid.unsqueeze(-1),
        "audio": torch.randn(count, length, 3, generator=generator) * valid.unsqueeze(-1),
    }
    means = torch.cat([x.sum(1) / lengths.unsqueeze(1) for x in features.values()], dim=-1)
    labels = (means @ torch.linspace(-1, 1, 8) + 0.1 * torch.randn(count, generator=generator)).clamp(-3, 3)
    data = Batch(
        features=features,
        valid={"text": valid, "audio": valid},
        observed={"text": valid, "audio": valid},
        labels=labels,
        index=torch.arange(count),
        ids=tuple(f"{split}-{i}" for i in range(count)),
    )
    return Utterances(
        data=data, task=regression(), name="toy", fold="standard", split=split, fingerprint=f"{split}-{count}-{seed}",
        groups=tuple(f"video-{i // 2}" for i in range(count)),
    )  # fmt: skip


@pytest.fixture
def splits() -> tuple[Utterances, Utterances]:
    return make_split("train", 40, 0), make_split("valid", 17, 1)


@pytest.fixture
def new_method(splits):
    def build(cls: type[Method] = TinyMethod, seed: int = 1, **config) -> Method:
        torch.manual_seed(seed)
        values = {"batch_size": 8, "max_epochs": 6, "patience": 6, "learning_rate": 0.02} | config
        return cls(splits[0].dims, splits[0].task, cls.Config(**values))

    return build


@pytest.fixture
def tiny_method() -> type[Method]:
    return TinyMethod
