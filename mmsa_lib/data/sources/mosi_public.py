"""Word-aligned CMU-MOSI sequences of two public repositories, read by the importers of their layouts.

Both are downloads only: verified by git blob id, never part of this project. The extractors used no labels as far as
the repositories tell, but the columns of the MFN files were selected by a rule that is not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources.mosi import OWNER_TERMS
from mmsa_lib.data.sources.reading import original
from mmsa_lib.errors import DataError

MFN_FILES = tuple(f"{kind}_{split}.h5" for split in ("train", "valid", "test") for kind in ("X", "y"))
MAGBERT_FILES = ("mosi.pkl",)

TERMS = "The repository's licence is MIT. " + OWNER_TERMS
_MOSI = (
    "Zadeh, Zellers, Pincus, Morency: Multimodal sentiment intensity analysis in videos: facial gestures and verbal "
    "messages. IEEE Intelligent Systems 31(6), 2016."
)
MFN_CITATION = (
    "Zadeh, Liang, Mazumder, Poria, Cambria, Morency: Memory fusion network for multi-view sequential learning. AAAI "
    f"2018 (the files). {_MOSI}"
)
MAGBERT_CITATION = (
    "Rahman, Hasan, Lee, Zadeh, Mao, Morency, Hoque: Integrating multimodal information in large pretrained "
    f"transformers. ACL 2020 (the layout). {_MOSI}"
)


def build_mfn(files: Mapping[str, Path]) -> DatasetRecord:
    """CMU-MOSI on the standard fold as MFN's HDF5 files: 20 steps of GloVe 300, COVAREP 5 and FACET 20.

    Args:
        files: file name to path, for every name in :data:`MFN_FILES`; all in one folder.

    Raises:
        DataError: a file is missing, lies elsewhere, or is not in the layout that MFN's code expects.
    """
    from mmsa_lib.data.sources import mfn_folder

    folders = {original(files, name).parent for name in MFN_FILES}
    if len(folders) > 1:
        raise DataError(f"the MFN files lie in {len(folders)} folders; put them into one")
    return _described(mfn_folder.read(folders.pop(), "mosi_mfn"), MFN_CITATION)


def build_magbert(files: Mapping[str, Path]) -> DatasetRecord:
    """CMU-MOSI as MAG-BERT's pickle: words with visual 47 and acoustic 74 features per word.

    Args:
        files: ``mosi.pkl`` to its path.

    Raises:
        DataError: the file is missing, is not a harmless pickle, or has another layout.
    """
    from mmsa_lib.data.sources import mag_pickle

    return _described(mag_pickle.read(original(files, "mosi.pkl"), "mosi_magbert"), MAGBERT_CITATION)


def _described(record: DatasetRecord, citation: str) -> DatasetRecord:
    record.terms, record.citation = TERMS, citation
    return record
