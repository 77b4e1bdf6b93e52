"""What a training step of contrastive_mmcl costs, relative to late fusion with the same encoders.

The reference has the projections and first-stage encoders of contrastive_mmcl, masked means, one head and the task loss
alone. One process, the same batch and thread count for all; rounds take turns, so that other load on the machine hits
all alike. Prints the median milliseconds per step and their ratios to the reference.

    python benchmarks/contrastive_step.py                                     # the synthetic set, defaults
    python benchmarks/contrastive_step.py --store mosi --set width=128 feedforward=256
    python benchmarks/contrastive_step.py --device cuda --rounds 30
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import yaml
from step_timing import milliseconds_of, print_ratios
from torch import Tensor

from mmsa_lib.data import Batch, load
from mmsa_lib.methods import create
from mmsa_lib.methods.base import Method, Output
from mmsa_lib.methods.contrastive_mmcl import ContrastiveMMCL
from mmsa_lib.training import seed_everything

VARIANTS: dict[str, dict[str, Any]] = {
    "both stages, task loss alone": {"no_cmc": True, "no_smc": True},
    "with CMC": {"no_smc": True},
    "with SMC": {"no_cmc": True},
    "with both, no routing": {"no_routing": True},
    "contrastive_mmcl": {},
    "single stage": {"single_stage": True},
}
REFERENCE = "late fusion, same encoders"


class LateFusionSameEncoders(ContrastiveMMCL):
    """The first stage of contrastive_mmcl under late fusion: pooled states side by side, one head, no contrast."""

    id = "late_fusion_same_encoders"

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        return {"task": self.task.loss(output.prediction, batch.labels)}


def main() -> None:
    """Parse the command line, time all variants, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="synthetic", help="name or .h5 file of a data set")
    parser.add_argument("--fold", default="standard")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of contrastive_mmcl")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in options.set)}
    data = load(options.store, options.fold)["train"]
    generator = torch.Generator().manual_seed(0)
    batch = next(data.batches(options.batch_size, shuffle=True, generator=generator)).to(options.device)
    methods = build_all(data.dims, data.task, options.store, settings, options.device)
    optimizers = {name: method.optimizers() for name, method in methods.items()}
    milliseconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_number in range(options.rounds + 2):
        for name, method in methods.items():
            call = partial(step, method, batch, optimizers[name], options.precision)
            taken = milliseconds_of(call, options.device)
            if round_number >= 2:  # the first rounds warm up memory and kernels
                milliseconds[name].append(taken)
    report(milliseconds, methods, batch, options)


def build_all(dims, task, dataset: str, settings: dict[str, Any], device: str) -> dict[str, Method]:
    """The reference and all variants, each from the same random start."""
    seed_everything(0)
    config = ContrastiveMMCL.Config.for_dataset(dataset, **{**settings, "single_stage": True, "no_routing": True})
    methods: dict[str, Method] = {REFERENCE: LateFusionSameEncoders(dims, task, config)}
    for name, switches in VARIANTS.items():
        seed_everything(0)
        methods[name] = create("contrastive_mmcl", dims, task, dataset=dataset, **{**settings, **switches})
    return {name: method.to(device).train() for name, method in methods.items()}


def step(method: Method, batch: Batch, optimizers: dict, precision: str) -> None:
    """One training step in the precision that was asked for."""
    with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        method.training_step(batch, optimizers)


def report(
    milliseconds: dict[str, list[float]], methods: dict[str, Method], batch: Batch, options: argparse.Namespace
) -> None:
    """Print one line per variant."""
    shapes = ", ".join(f"{m} {tuple(x.shape)}" for m, x in batch.features.items())
    print(
        f"{options.store}: {shapes}; {options.device}, {options.precision}, {options.threads} thread(s), "
        f"median of {options.rounds} steps, settings {' '.join(options.set) or 'default'}"
    )
    print_ratios(milliseconds, methods, REFERENCE)


if __name__ == "__main__":
    main()
