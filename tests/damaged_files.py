"""Damage as it happens to files: flipped bits, a cut end, blocks of zeros, other bytes."""

import random


def damaged(content: bytes, generator: random.Random) -> bytes:
    """``content`` with one kind of damage at a random place."""
    wrong, place = bytearray(content), generator.randrange(len(content))
    kind = generator.choice(["bit", "bits", "cut", "zeros", "noise"])
    if kind == "cut":
        return bytes(wrong[:place])
    if kind == "zeros":
        length = min(512, len(wrong) - place)
        wrong[place : place + length] = bytes(length)
    elif kind == "noise":
        length = min(generator.choice([2, 30]), len(wrong) - place)
        wrong[place : place + length] = generator.randbytes(length)
    else:
        for _ in range(1 if kind == "bit" else 8):
            wrong[generator.randrange(len(wrong))] ^= 1 << generator.randrange(8)
    return bytes(wrong)
