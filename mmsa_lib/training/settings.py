"""How a method is trained, apart from the method's own values."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mmsa_lib.errors import ConfigError, invalid_value
from mmsa_lib.methods.base import Method
from mmsa_lib.methods.evidence import numbers_only

IN_EFFECT_ONLY = frozenset({"checkpoint_every"})
"""Settings that change no number of a result, and so are no part of a run's identity."""


class TrainSettings(BaseModel):
    """Settings of the training loop. ``None`` means: what the method's own config says."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    device: str = Field("auto", description="where to train; auto: CUDA where there is one")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="number format of the training step; validation and tests always run in float32"
    )
    batch_size: int | None = Field(None, ge=1, description="samples per step")
    max_epochs: int | None = Field(
        None, ge=1, description="upper limit of epochs in each phase; none where max_steps is given alone"
    )
    patience: int | None = Field(
        None, ge=1, description="epochs without improvement that end a phase; none where patience_steps is given alone"
    )
    max_steps: int | None = Field(
        None, ge=1, description="steps of the method's first optimiser in each phase, which ends at exactly so many"
    )
    patience_steps: int | None = Field(None, ge=1, description="such steps without improvement that end a phase")
    validate_every: int | None = Field(
        None, ge=1, description="validate at the first end of an epoch after each so many steps; None: after each epoch"
    )
    min_delta: float = Field(
        1e-6, ge=0, allow_inf_nan=False, description="an improvement must exceed this [C: MMSA, Self-MM]"
    )
    bucket: bool | Literal["auto"] = Field(
        "auto", description="batch texts of similar length; auto: only where a text encoder is fine-tuned"
    )
    evaluation_batch_size: int = Field(256, ge=1, description="samples at a time in validation and tests")
    threads: int = Field(
        1, ge=1, description="CPU threads of torch; each number gives results of its own, which differ in the last bits"
    )
    checkpoint_every: int = Field(1, ge=1, description="epochs between two checkpoints")

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise invalid_value(error, "training setting", type(self)) from error

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, check: Callable[[Any], Any]) -> Any:
        return numbers_only(value, check(value))

    @field_validator("precision")
    @classmethod
    def _refuse_unscaled(cls, value: str) -> str:
        # float16 gradients underflow unless the loss is scaled, and each method calls backward and step on its own.
        if value == "float16":
            raise ValueError("float16 needs a gradient scaler, which the methods do not have; use bfloat16")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):  # cpu:1 is the CPU too, but would name another run
            raise ValueError("choose auto, cpu, cuda or cuda:<number>")
        return value

    def resolve(self, method: Method) -> TrainSettings:
        """The same settings with what ``None`` and ``"auto"`` mean for ``method`` here; a limit still ``None`` is none.

        Raises:
            ConfigError: a CUDA device is asked for and there is none, or bfloat16 where an LSTM can't be trained in it.
        """
        device = resolve_device(self.device)
        recurrent = any(isinstance(module, torch.nn.LSTM) for module in method.modules())
        if self.precision == "bfloat16" and device.type == "cpu" and recurrent and not bfloat16_lstm():
            raise ConfigError(
                f"precision='bfloat16': {method.id} has an LSTM, which this processor cannot train in bfloat16; "
                "use precision=float32"
            )
        # A limit in steps replaces the method's own in epochs.
        named = {"batch_size": None, "max_epochs": self.max_steps, "patience": self.patience_steps}
        used = {k: getattr(self, k) or (None if steps else getattr(method.config, k)) for k, steps in named.items()}
        used["bucket"] = method.text_encoder is not None if self.bucket == "auto" else self.bucket
        return TrainSettings(**{**self.model_dump(), **used, "device": str(device)})

    def identity(self) -> dict[str, Any]:
        """The settings that can change a number."""
        return self.model_dump(exclude=set(IN_EFFECT_ONLY))


def resolve_device(name: str) -> torch.device:
    """``auto`` becomes CUDA where there is one, else the CPU.

    Raises:
        ConfigError: the device does not exist on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use device=cpu")
    return device


@cache
def bfloat16_lstm() -> bool:
    """Whether an LSTM can be trained in bfloat16 on this CPU; oneDNN has no such primitive without AVX-512 [T]."""
    with torch.random.fork_rng(devices=[]):
        lstm = torch.nn.LSTM(2, 2, batch_first=True)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            states, _ = lstm(torch.zeros(1, 2, 2))
        states.float().sum().backward()
    except RuntimeError:
        return False
    return True
