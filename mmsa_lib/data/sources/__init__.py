"""Where data sets come from: one module per origin, each giving a :class:`~mmsa_lib.data.record.DatasetRecord`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmsa_lib.data.download import SourceFile, fetch, source
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources import mmmo, mosei_text, mosi, mosi_public, sims_text
from mmsa_lib.errors import DataError, MMSAError, unknown_name

__all__ = ["BUILDERS", "Builder", "build", "fetch_originals"]


@dataclass(frozen=True)
class Builder:
    """How one public data set is built from its original files.

    Attributes:
        description: the data set in one line.
        terms: what is known about the terms of use.
        folder: folder of the originals, in a mirror and below the downloads folder.
        required: names of the files that are needed; optional: names of files that complete the set.
        assemble: file name to path, to the data set.
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
        description="CMU-MOSI: 2,199 segments with words and times, audio, vision and text features per segment",
        terms=mosi.TERMS,
        folder="cmu-mosi/original",
        required=mosi.FILES,
        assemble=mosi.build,
    ),
    "mmmo": Builder(
        description="ICT-MMMO: 340 videos, three word-aligned modalities in 20 steps; the training part lacks text",
        terms=mmmo.TERMS,
        folder="ict-mmmo",
        required=mmmo.FILES,
        optional=(mmmo.TRAINING_TEXT,),
        assemble=mmmo.build,
    ),
    "mosei_text": Builder(
        description="CMU-MOSEI, text only: 22,856 transcripts with labels and segment times",
        terms=mosei_text.TERMS,
        folder="cmu-mosei-text/original",
        required=mosei_text.FILES,
        assemble=mosei_text.build,
    ),
    "sims_text": Builder(
        description="CH-SIMS, text only: 2,281 Chinese transcripts with English translations and labels",
        terms=sims_text.TERMS,
        folder="ch-sims-text/original/sims",
        required=sims_text.FILES,
        assemble=sims_text.build,
    ),
    "simsv2_text": Builder(
        description="CH-SIMS v2, text only: 4,403 Chinese transcripts with English translations and labels",
        terms=sims_text.TERMS,
        folder="ch-sims-text/original/simsv2",
        required=sims_text.FILES,
        assemble=sims_text.build_v2,
    ),
    "mosi_mfn": Builder(
        description="CMU-MOSI of the MFN repository: word-aligned text 300, audio 5, vision 20 in 20 steps (download)",
        terms=mosi_public.TERMS,
        folder="mosi-mfn",
        required=mosi_public.MFN_FILES,
        assemble=mosi_public.build_mfn,
    ),
    "mosi_magbert": Builder(
        description="CMU-MOSI in the MAG-BERT layout: words with audio 74 and vision 47 per word (download)",
        terms=mosi_public.TERMS,
        folder="mosi-magbert",
        required=mosi_public.MAGBERT_FILES,
        assemble=mosi_public.build_magbert,
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
