"""``mmsa-lib extract``: videos and sound into a folder of samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsa_lib.cli.output import add_command, answer, say
from mmsa_lib.errors import DataError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``extract``."""
    more = (
        "Write features of videos and sound files into a folder that 'mmsa-lib predict' and, with labels, 'mmsa-lib "
        "data import table' read. Finished files are not done again. Needs: pip install 'mmsa-lib[extract]'."
    )
    add = add_command(subparsers, "extract", extract, "turn own videos into features", more).add_argument
    add("media", nargs="+", type=Path, metavar="VIDEO", help="video or sound file, or a folder of such")
    add("--out", type=Path, default=Path("extracted"), metavar="FOLDER", help="of the samples; default: extracted")
    texts = "srt, vtt, csv, TextGrid or txt; a csv with a column id for many files; or a folder of files"
    add("--transcript", type=Path, metavar="FILE", help=f"what is said: {texts}")
    add("--segments", type=Path, metavar="FILE", help="cut into utterances: subtitles, or csv with start and end")
    add("--audio", choices=("egemaps", "none"), default="egemaps", help="default: egemaps (openSMILE)")
    vision = ("both", "blendshapes", "landmarks", "none")
    add("--vision", choices=vision, default="both", help="features of the face; default: both")
    add("--fps", type=float, default=10.0, metavar="N", help="pictures per second to look at; default: 10")
    add("--unaligned", action="store_true", help="keep all rows also where words have times")
    add("--face-model", type=Path, metavar="FILE", help="a face_landmarker.task of your own")
    add("--recogniser", metavar="MODEL", help="Whisper model (folder or hub name) where no transcript is")
    add("--picture", type=Path, metavar="PNG", help="draw the first file and what was extracted from it")
    add("--force", action="store_true", help="do finished files again")
    add("--quiet", action="store_true", help="no progress bar")


def extract(args: argparse.Namespace) -> int:
    """Extract, draw, report; 1 where some files could not be read."""
    from mmsa_lib.data.extract import extract as run

    done = run(
        args.media, out=args.out, transcript=args.transcript, segments=args.segments, audio=args.audio,
        vision=args.vision, fps=args.fps, aligned=not args.unaligned, face_model=args.face_model,
        recogniser=args.recogniser, force=args.force, keep_first=args.picture is not None,
        progress=not args.quiet, say=say,
    )  # fmt: skip
    if not (done.done or done.skipped):
        first, *others = done.failed.values()
        raise DataError(f"{first}; and {len(others)} others" if others else first)
    if args.picture is not None:
        _draw(done.clip, args.picture)
    lines = [f"{s['id']}: {_rows(s['rows'])}" for s in done.samples]
    lines += [f"{len(done.samples)} samples in {done.folder}; {len(done.skipped)} files were finished before"]
    lines += [f"next: mmsa-lib predict RUN {done.folder}; or label samples.csv: mmsa-lib data import table --help"]
    for name, notes in done.notes.items():
        for note in notes:
            say(f"note: {name}: {note}")
    for reason in done.failed.values():
        say(f"failed: {reason}")
    report = {key: getattr(done, key) for key in ("samples", "done", "skipped", "failed", "notes")}
    answer(args, {"folder": str(done.folder), **report}, lines)
    return 1 if done.failed else 0


def _rows(rows: dict) -> str:
    arrays = [f"{m} {' x '.join(map(str, shape))}" for m, shape in rows.items() if m != "words"]
    return ", ".join([*arrays, f"{rows['words']} words with times"])


def _draw(clip, target: Path) -> None:
    """Save the picture of a clip."""
    from mmsa_lib.figures.clip import clip_figure
    from mmsa_lib.figures.style import style
    from mmsa_lib.files import atomic_path

    with style(), atomic_path(target) as temporary:
        clip_figure(**clip.drawn()).savefig(temporary, format="png", dpi=150)
    say(f"picture of {clip.name} in {target}")
