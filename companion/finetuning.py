"""Notebook 12: the drawing of a fine-tuned text encoder, memory in stacked bars, and what steps and runs cost."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from mmsa_lib.data import Utterances
from mmsa_lib.figures import palette
from mmsa_lib.figures.diagrams import Diagram
from mmsa_lib.methods import create

PARTS = {
    "weights": palette.BLUE,
    "gradients": palette.SKY,
    "Adam": palette.GREEN,
    "activations": palette.ORANGE,
}
MOSI = {"train": 1284, "valid": 229, "test": 686}
EPOCHS = 10


def drawing() -> Diagram:
    """A step of a fine-tuned text encoder: the way forward (below), and what the way back needs (above, grey)."""
    d, text = Diagram(), palette.MODALITY["text"]
    d.add("tokens", 0.5, 0, "tokens\n$B\\times T$", width=0.9, height=0.5, colour=text)
    d.add("words", 2.1, 0, "table of words", "tokens", width=1.3, colour=text)
    d.add("layers", 4.0, 0, "Transformer layers", "words", width=1.6, colour=text)
    d.add("mean", 5.8, 0, "mean over words", "layers", width=1.4, colour=text)
    d.add("head", 7.2, 0, "head", "mean", width=0.7)
    d.add("loss", 8.4, 0, "loss", "head", loss=True, width=0.8)
    d.add(
        "activations",
        4.0,
        1.0,
        "activations: what each\nlayer computed",
        "layers",
        width=1.9,
        height=0.5,
        training=True,
    )
    d.add("gradients", 6.9, 1.0, "gradients: a number\nfor each weight", width=1.8, height=0.5, training=True)
    d.arrow("loss", "gradients")
    d.arrow("activations", "gradients")
    d.add("adam", 6.9, 2.0, "Adam: two moments\nfor each weight", "gradients", width=1.8, height=0.5, training=True)
    d.add("step", 2.1, 1.0, "small steps", width=1.1, training=True)
    d.arrow("adam", "step", via=((2.1, 2.0),))
    d.arrow("step", "words")
    d.arrow("step", "layers")
    return d


def stacked(memory: pd.DataFrame, label: str) -> Figure:
    """Stacked horizontal bars: a column of ``memory`` each, its rows the parts of :data:`PARTS`."""
    figure = Figure(figsize=(7.5, 0.9 + 0.38 * memory.shape[1]), layout="constrained")
    axes, left = figure.subplots(), pd.Series(0.0, memory.columns)
    for part, colour in PARTS.items():
        axes.barh(list(memory.columns), memory.loc[part], left=left, color=colour, label=part)
        left += memory.loc[part]
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=len(PARTS))
    figure.set_label(f"Stacked bars of {', '.join(PARTS)} in {label}, for {', '.join(memory.columns)}")
    return figure


def cost(
    train: Utterances, text_model: str, precision: str, batch_size: int, device: torch.device, steps: int = 6
) -> dict[str, Any]:
    """What a step of ``text_only`` with a fine-tuned encoder takes, as a row of ``data/results/finetuning_costs.csv``.

    Seconds are those of the processor's clock on a CPU, which other programs do not move, and of the wall on a GPU;
    ``peak`` are the MiB that tensors took there at most, NaN on a CPU. Two steps of warming up do not count.
    """
    gpu, clock = device.type == "cuda", time.perf_counter if device.type == "cuda" else time.process_time
    model = create("text_only", train.dims, train.task, text_encoder="bert", text_model=text_model).to(device).train()
    optimizers, marks, tokens = model.optimizers(), [], 0
    order = torch.Generator().manual_seed(0)
    batches = train.batches(batch_size, shuffle=True, generator=order, bucket=True)
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    for batch in itertools.islice(itertools.cycle(batches), 2 + steps):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            model.training_step(batch, optimizers)
        if gpu:
            torch.cuda.synchronize(device)
        marks.append(clock())
        tokens += batch.valid["text"].shape[1]
    return {
        "device": device.type,
        "machine": torch.cuda.get_device_name(device) if gpu else "one CPU core",
        "precision": precision,
        "text_model": Path(text_model).name,
        "batch_size": batch_size,
        "tokens": round(tokens / len(marks), 1),
        "seconds": round((marks[-1] - marks[1]) / steps, 4),
        "peak": round(torch.cuda.max_memory_allocated(device) / 2**20) if gpu else math.nan,
    }


def estimated(costs: pd.DataFrame) -> pd.DataFrame:
    """``costs`` with steps a minute, and minutes for ten epochs of MOSI, a forward pass a third of a step."""
    texts = EPOCHS * (MOSI["train"] + MOSI["valid"] / 3) + MOSI["test"] / 3
    minutes = texts / costs["batch_size"] * costs["seconds"] / 60
    shown = costs.assign(steps=(60 / costs["seconds"]).round().astype(int), minutes=minutes.round(1))
    wanted = {
        "machine": "machine", "text_model": "encoder", "precision": "precision", "data": "texts", "batch_size": "batch",
        "tokens": "tokens", "steps": "steps a minute", "peak": "peak (MiB)", "minutes": "minutes for MOSI (estimate)",
    }  # fmt: skip
    shown = shown.drop(columns="peak") if shown["peak"].isna().all() else shown
    return shown[[name for name in wanted if name in shown]].rename(columns=wanted).set_index("machine")
