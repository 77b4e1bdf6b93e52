"""Published files and data sets that are recognised: by checksum, and by the sizes of their three splits."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

from mmsa_lib.data.download import git_blob_sha1, manifest
from mmsa_lib.errors import DataError

log = logging.getLogger(__name__)


class OfficialFile(NamedTuple):
    """An official feature file: its set and path as the owners name them, and its published checksums.

    The two checksums of one line come from two readmes; whether they belong to one release was not checked.
    """

    dataset: str
    path: str
    sha256: str
    sha1: str


OFFICIAL_FILES = tuple(
    OfficialFile(*line.split())
    for line in """
CMU-MOSI MOSI/Processed/unaligned_50.pkl 78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524 \
5da0b8440fc5a7c3a457859af27458beb993e088
CMU-MOSI MOSI/Processed/aligned_50.pkl d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9 \
5c62b896619a334a7104c8bef05d82b05272c71c
CMU-MOSEI MOSEI/Processed/unaligned_50.pkl ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f \
db3e2cff4d706a88ee156981c2100975513d4610
CMU-MOSEI MOSEI/Processed/aligned_50.pkl 45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791 \
ef49589349bc1c2bc252ccc0d4657a755c92a056
CH-SIMS SIMS/Processed/unaligned_39.pkl c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f \
a00c73e92f66896403c09dbad63e242d5af756f8
""".strip().splitlines()
)
"""SHA-256 of the MMSA readme (commit a94e65d), SHA-1 of the Self-MM readme."""


class KnownSet(NamedTuple):
    """A published data set: sizes of train, valid and test, and what to cite."""

    name: str
    sizes: tuple[int, int, int]
    citation: str


KNOWN_SETS = (
    KnownSet(
        "CMU-MOSI",
        (1284, 229, 686),
        "Zadeh, Zellers, Pincus, Morency: Multimodal sentiment intensity analysis in videos: facial gestures and "
        "verbal messages. IEEE Intelligent Systems 31(6), 2016.",
    ),
    KnownSet(
        "CMU-MOSEI",
        (16326, 1871, 4659),
        "Zadeh, Liang, Poria, Cambria, Morency: Multimodal language analysis in the wild: CMU-MOSEI dataset and "
        "interpretable dynamic fusion graph. ACL 2018.",
    ),
    KnownSet(
        "CH-SIMS",
        (1368, 456, 457),
        "Yu, Xu, Meng, Zhu, Ma, Wu, Zou, Yang: CH-SIMS: a Chinese multimodal sentiment analysis dataset with "
        "fine-grained annotation of modality. ACL 2020.",
    ),
    KnownSet(
        "CH-SIMS v2",
        (2722, 647, 1034),
        "Liu, Yuan, Mao, Liang, Yang, Qiu, Cheng, Li, Xu, Gao: Make acoustic and visual cues matter: CH-SIMS v2.0 "
        "dataset and AV-Mixup consistent module. ICMI 2022.",
    ),
    KnownSet(
        "IEMOCAP",
        (2717, 798, 938),
        "Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan: IEMOCAP: interactive emotional dyadic "
        "motion capture database. Language Resources and Evaluation 42(4), 2008.",
    ),
)


def known_set(sizes: tuple[int, ...]) -> KnownSet | None:
    """The published set with these sizes of train, valid and test, or ``None``."""
    return next((known for known in KNOWN_SETS if known.sizes == sizes), None)


def identify(path: Path, sizes: tuple[int, ...]) -> tuple[str, list[str]]:
    """Name an imported file by its checksums.

    Args:
        path: the file.
        sizes: samples in train, valid and test, to tell which official file it should be.

    Returns:
        A line for ``DatasetRecord.sources`` (name and SHA-256), and remarks for ``notes``: which published file it is,
        or both checksums where name and set are those of an official file and the checksum is not. That case is also
        logged as a warning, because older releases exist and results may differ.

    Raises:
        DataError: the file can't be read.
    """
    digests = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                for digest in digests:
                    digest.update(chunk)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    sha256, sha1 = (digest.hexdigest() for digest in digests)
    line = f"{path.name}: SHA-256 {sha256}"
    for official in OFFICIAL_FILES:
        if sha256 == official.sha256 or sha1 == official.sha1:
            kind = "SHA-256 of the MMSA readme" if sha256 == official.sha256 else "SHA-1 of the Self-MM readme"
            return line, [f"{path.name} is the official {official.path} ({kind})"]
    blob = git_blob_sha1(path)
    for entry in manifest():
        if sha256 == entry.sha256 or blob == entry.git_blob_sha1:
            return line, [f"{path.name} is {entry.path} of github.com/{entry.owner}/{entry.repo} @ {entry.commit}"]
    known = known_set(sizes)
    for official in OFFICIAL_FILES:
        if known and known.name == official.dataset and path.name == Path(official.path).name:
            remark = (
                f"{path.name} has the name and the sizes of the official {official.path}, and another content: SHA-256 "
                f"expected {official.sha256}, found {sha256}; SHA-1 expected {official.sha1}, found {sha1}. It may be "
                "an older release; results may differ from those on the official file"
            )
            log.warning("%s", remark)
            return line, [remark]
    return line, [f"{path.name}: the checksum is not that of a published file"]
