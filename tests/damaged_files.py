"""Damage as it happens to files: flipped bits, a cut end, blocks of zeros, other bytes."""

import random
import re


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


HUGE = (
    b"1e400",
    b"9" * 5000,
    b"NaN",
    b"-1",
    b"99999999999999999999",
    b"null",
    b'"',
    b"[" * 3000,
    b"\0",
    "\u202e".encode(),
)


def mutated(content: bytes, generator: random.Random) -> bytes:
    """``content`` after damage, or after one of the changes of a hostile writer: fields swapped, numbers made huge."""
    kind = generator.choice(["damage", "swap", "again", "huge", "number", "word", "line"])
    tokens = (
        [] if kind not in ("number", "word") else [*re.finditer(rb"[0-9.]+" if kind == "number" else rb"\w+", content)]
    )
    if kind == "damage" or not content or (not tokens and kind in ("number", "word")):
        return damaged(content, generator) if content else content
    if kind == "number":
        token = generator.choice(tokens)
        return content[: token.start()] + generator.choice(HUGE) + content[token.end() :]
    if kind == "word":
        token, other = generator.choice(tokens), generator.choice(tokens)
        return content[: token.start()] + other[0] + content[token.end() :]
    if kind == "line":
        lines = content.splitlines(keepends=True)
        lines[generator.randrange(len(lines))] = generator.choice(lines) if generator.random() < 0.5 else b""
        return b"".join(lines)
    start, length = generator.randrange(len(content)), generator.choice([1, 4, 8, 40])
    if kind == "huge":
        number = generator.choice([2**31, 2**40, 2**63 - 1, 2**64 - 1]).to_bytes(8, generator.choice(["little", "big"]))
        return content[:start] + number + content[start + 8 :]
    other, piece = generator.randrange(len(content)), content[start : start + length]
    return content[:other] + piece + content[other + (len(piece) if kind == "swap" else 0) :]
