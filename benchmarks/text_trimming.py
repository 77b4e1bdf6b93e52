"""How much of a fine-tuning epoch is padding: fixed length, trimmed batches, trimmed batches of similar lengths.

One process, the same model, texts and labels for all three; rounds take turns, so that other load on the machine hits
all alike. Prints processor seconds per epoch and their ratios to the fixed length.

    python benchmarks/text_trimming.py --store mosi                # a data set that was built or imported
    python benchmarks/text_trimming.py --store mosi.h5 --samples 320 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from mmsa_lib.data import Utterances, load
from mmsa_lib.data.text import DEFAULT_TEXT_MODEL
from mmsa_lib.nn.text_encoder import TextEncoder


def main() -> None:
    """Parse the command line, time the three ways to batch, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="mosi", help="name or .h5 file of a data set with transcripts")
    parser.add_argument("--text-model", default=DEFAULT_TEXT_MODEL)
    parser.add_argument("--samples", type=int, default=640, help="training samples per epoch, the first of a shuffle")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    data = load(
        options.store,
        text="tokens",
        audio=None,
        vision=None,
        text_model=options.text_model,
        max_length=options.max_length,
    )["train"]
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[: options.samples]
    data = data.select(chosen)
    encoder = TextEncoder(options.text_model).train()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-6)
    ways = {"fixed": False, "trimmed": False, "trimmed + bucketed": True}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    frames: dict[str, int] = {}
    for round_number in range(options.rounds):
        for way, bucket in ways.items():
            fixed = options.max_length if way == "fixed" else 0
            batches = list(texts(data, options.batch_size, bucket, fixed, seed=round_number))
            frames[way] = sum(tokens.numel() for tokens, _, _ in batches)
            start = time.process_time()
            epoch(encoder, optimizer, batches)
            seconds[way].append(time.process_time() - start)
    report(data, options, seconds, frames)


def texts(
    data: Utterances, size: int, bucket: bool, fixed: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Tokens, mask and labels of each batch; padded to ``fixed`` tokens where that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    for batch in data.batches(size, shuffle=True, generator=generator, bucket=bucket):
        missing = max(0, fixed - batch.tokens.shape[1])
        yield F.pad(batch.tokens, (0, missing)), F.pad(batch.valid["text"], (0, missing)), batch.labels


def epoch(encoder: TextEncoder, optimizer: torch.optim.Optimizer, batches: list) -> None:
    """One pass of fine-tuning: mean of the token states, absolute error of their mean, backward, step."""
    for tokens, valid, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        pooled = encoder(tokens, valid).sum(1) / valid.sum(1, keepdim=True)
        F.l1_loss(pooled.mean(-1), labels).backward()
        optimizer.step()


def report(
    data: Utterances, options: argparse.Namespace, seconds: dict[str, list[float]], frames: dict[str, int]
) -> None:
    """Print one line per way."""
    lengths = data.lengths("text").double()
    print(
        f"{data.name}, {len(data)} texts of {lengths.mean():.1f} tokens on average, batches of {options.batch_size}, "
        f"{options.text_model}, {options.threads} thread(s), median of {options.rounds} rounds"
    )
    reference = statistics.median(seconds["fixed"])
    print(f"{'':20}{'CPU s/epoch':>12}{'min':>8}{'max':>8}{'ratio':>8}{'tokens fed':>12}{'ratio':>8}")
    for way, values in seconds.items():
        middle, share = statistics.median(values), frames[way] / frames["fixed"]
        print(
            f"{way:20}{middle:12.2f}{min(values):8.2f}{max(values):8.2f}{middle / reference:8.2f}"
            f"{frames[way]:12d}{share:8.2f}"
        )


if __name__ == "__main__":
    main()
