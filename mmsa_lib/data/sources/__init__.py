"""Where data sets come from: one module per origin, each giving a :class:`~mmsa_lib.data.record.DatasetRecord`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mmsa_lib.data.download import fetch
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources import mag_pickle, mmmo, mosi, text_only
from mmsa_lib.data.sources.official import PUBLIC_SETS
from mmsa_lib.data.sources.reading import original
from mmsa_lib.errors import DataError, MMSAError, unknown_name

__all__ = ["BUILDERS", "PUBLIC_SETS", "build", "fetch_originals"]


BUILDERS: dict[str, Callable[[Mapping[str, Path]], DatasetRecord]] = {
    "mosi": mosi.build,
    "mmmo": mmmo.build,
    "mosei_text": text_only.build_mosei,
    "sims_text": text_only.build_sims,
    "simsv2_text": partial(text_only.build_sims, name="simsv2_text"),
    "mosi_mfn": mosi.build_mfn,
    "mosi_magbert": lambda files: mag_pickle.read(original(files, "mosi.pkl"), "mosi_magbert"),
}
"""How each of :data:`PUBLIC_SETS` is put together: from ``files``, the path of every file that it requires by name, to
the data set without terms and citation. Each raises DataError where a file is missing, unreadable or not the known one,
or where two files disagree."""


def fetch_originals(
    name: str, mirror: Path | str | None = None, progress: bool = True, optional: bool = False
) -> dict[str, Path]:
    """Verified original files of a data set, by file name; arguments and errors as for :func:`build`."""
    if name not in PUBLIC_SETS:
        raise unknown_name("public data set", name, PUBLIC_SETS)
    known = PUBLIC_SETS[name]
    required, extra = known.sources(known.required), known.sources(known.optional)
    if optional:
        required, extra = required + extra, []
    return fetch(required, optional=extra, mirror=mirror, progress=progress)


def build(name: str, mirror: Path | str | None = None, progress: bool = True, optional: bool = False) -> DatasetRecord:
    """Build a public data set from its verified original files.

    Args:
        name: a key of :data:`PUBLIC_SETS`.
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
        record = BUILDERS[name](files)
    except MMSAError:
        raise
    except Exception as error:  # checked files can't be wrong; files that changed since can be so in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise DataError(f"the original files of {name} can't be read ({reason}); fetch them again") from error
    known = PUBLIC_SETS[name]
    used = [entry for entry in known.sources([*known.required, *known.optional]) if entry.name in files]
    record.sources = [entry.line() for entry in used]
    record.terms, record.citation = known.terms, known.citation
    return record
