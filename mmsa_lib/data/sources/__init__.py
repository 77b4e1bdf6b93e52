"""Where data sets come from: one module per origin, each giving a :class:`~mmsa_lib.data.record.DatasetRecord`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmsa_lib.data.download import SourceFile, fetch, source
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources import mmmo, mosi, text_only
from mmsa_lib.errors import DataError, MMSAError, unknown_name

__all__ = ["BUILDERS", "Builder", "build", "fetch_originals"]


@dataclass(frozen=True)
class Builder:
    """How one public data set is built from its original files.

    Attributes:
        description: the data set in one line.
        terms: what is known about the terms of use.
        folder: folder of the originals, in a mirror and below the downloads folder.
        required: names of the files that are needed.
        assemble: file name to path, to the data set.
        optional: names of files that complete the set.
    """

    description: str
    terms: str
    folder: str
    required: tuple[str, ...]
    assemble: Callable[[Mapping[str, Path]], DatasetRecord]
    optional: tuple[str, ...] = ()

    def sources(self, names: tuple[str, ...]) -> list[SourceFile]:
        """The manifest's entries of some of the files."""
        return [source(f"{self.folder}/{name}") for name in names]


BUILDERS: dict[str, Builder] = {
    "mosi": Builder(
        "CMU-MOSI: 2,199 segments with words and times, audio, vision and text features per segment",
        mosi.TERMS,
        "cmu-mosi/original",
        mosi.FILES,
        mosi.build,
    ),
    "mmmo": Builder(
        "ICT-MMMO: 340 videos, three word-aligned modalities in 20 steps; the training part lacks text",
        mmmo.TERMS,
        "ict-mmmo",
        mmmo.FILES,
        mmmo.build,
        optional=(mmmo.TRAINING_TEXT,),
    ),
    "mosei_text": Builder(
        "CMU-MOSEI, text only: 22,856 transcripts with labels and segment times",
        text_only.MOSEI_TERMS,
        "cmu-mosei-text/original",
        text_only.MOSEI_FILES,
        text_only.build_mosei,
    ),
    "sims_text": Builder(
        "CH-SIMS, text only: 2,281 Chinese transcripts with English translations and labels",
        text_only.SIMS_TERMS,
        "ch-sims-text/original/sims",
        text_only.SIMS_FILES,
        text_only.build_sims,
    ),
    "simsv2_text": Builder(
        "CH-SIMS v2, text only: 4,403 Chinese transcripts with English translations and labels",
        text_only.SIMS_TERMS,
        "ch-sims-text/original/simsv2",
        text_only.SIMS_FILES,
        partial(text_only.build_sims, name="simsv2_text"),
    ),
    "mosi_mfn": Builder(
        "CMU-MOSI of the MFN repository: word-aligned text 300, audio 5, vision 20 in 20 steps (download)",
        mosi.PUBLIC_TERMS,
        "mosi-mfn",
        mosi.MFN_FILES,
        mosi.build_mfn,
    ),
    "mosi_magbert": Builder(
        "CMU-MOSI in the MAG-BERT layout: words with audio 74 and vision 47 per word (download)",
        mosi.PUBLIC_TERMS,
        "mosi-magbert",
        mosi.MAGBERT_FILES,
        mosi.build_magbert,
    ),
}


def fetch_originals(
    name: str, mirror: Path | str | None = None, progress: bool = True, optional: bool = False
) -> dict[str, Path]:
    """Verified original files of a data set, by file name; arguments and errors as for :func:`build`."""
    builder = _builder(name)
    required, extra = builder.sources(builder.required), builder.sources(builder.optional)
    if optional:
        required, extra = required + extra, []
    return fetch(required, optional=extra, mirror=mirror, progress=progress)


def build(name: str, mirror: Path | str | None = None, progress: bool = True, optional: bool = False) -> DatasetRecord:
    """Build a public data set from its verified original files.

    Args:
        name: a key of :data:`BUILDERS`.
        mirror: folder that holds the originals, laid out like the manifest's ``local_path`` column; by default the
            environment variable ``MMSA_LIB_MIRROR``, and without it the files are downloaded from GitHub.
        progress: show download progress on stderr.
        optional: also demand the files that complete the set (ICT-MMMO's training text); by default they are used
            where they are at hand.

    Raises:
        UnknownNameError: no such data set.
        DataError: a file is missing, damaged or can't be downloaded, or the set is not what it should be.
    """
    files = fetch_originals(name, mirror, progress, optional)
    try:
        record = BUILDERS[name].assemble(files)
    except MMSAError:
        raise
    except Exception as error:  # checked files can't be wrong; files that changed since can be so in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise DataError(f"the original files of {name} can't be read ({reason}); fetch them again") from error
    builder = BUILDERS[name]
    used = [entry for entry in builder.sources(builder.required + builder.optional) if entry.name in files]
    record.sources = [entry.line() for entry in used]
    return record


def _builder(name: str) -> Builder:
    if name not in BUILDERS:
        raise unknown_name("public data set", name, BUILDERS)
    return BUILDERS[name]
