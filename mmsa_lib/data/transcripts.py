"""What was said in a clip, and when: subtitles, tables of words, Praat TextGrids, plain text.

======================  ============================================================================================
``.srt`` ``.vtt``       cues; WebVTT may time each word inside a cue (``<00:00:01.200>word``)
``.csv`` ``.tsv``       columns ``start``, ``end`` (seconds or ``h:mm:ss.s``) and ``word`` or ``text``; a column ``id``
                        (or ``video_id`` and ``clip_id``) makes it the table of many clips, also without times
``.TextGrid``           long or short form; the tier called ``words`` (``mary - words``), or the only tier of intervals
``.txt``                text without times
======================  ============================================================================================
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from mmsa_lib.data.sources.reading import Cells, read_cells, text_of
from mmsa_lib.errors import DataError

SUBTITLES, TABLES, TEXTGRID, PLAIN = (".srt", ".vtt"), (".csv", ".tsv"), ".textgrid", ".txt"
ENDINGS = (TEXTGRID, *TABLES, *SUBTITLES, PLAIN)

OVERLAP, BEYOND = 0.05, 0.25
"""Seconds that two spans may share, and that a span may begin before a clip or end after it: what aligners round."""

_NAMES = {
    "start": ("start", "begin", "onset", "start_time", "tmin", "xmin", "from"),
    "end": ("end", "stop", "offset", "end_time", "tmax", "xmax", "to"),
    "text": ("word", "text", "token", "sentence", "utterance", "transcript"),
    "id": ("id", "video_id", "video", "file", "filename", "name"),
    "clip": ("clip_id", "clip"),
}
_PAUSES = {"", "sp", "sil", "silence", "spn", "<sil>", "<p:>", "<eps>"}
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?|[.,]\d+)")
_CUE = re.compile(r"\s*(\S+)\s*-->\s*(\S+)")
_INSIDE = re.compile(r"<((?:\d+:)?\d\d:\d\d[.,]\d+)>")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_VALUE = re.compile(r'"((?:[^"]|"")*)"|(?<![\w\[.\-+])([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w\]])')


@dataclass(frozen=True)
class Span:
    """What was said between ``start`` and ``end``, in seconds from the start of the clip."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was said in a clip.

    Attributes:
        text: all of it.
        spans: the same by time, in order; empty where there are no times.
    """

    text: str
    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, spans: Iterable[Span]) -> Transcript:
        """The transcript of spans of time."""
        spans = tuple(sorted(spans, key=lambda span: (span.start, span.end)))
        return cls(" ".join(span.text for span in spans if span.text), spans)


def read_transcript(path: Path) -> Transcript | dict[str, Transcript]:
    """The transcript in a file of one of the forms that the module describes; a table of many clips gives it by id.

    Raises:
        DataError: another kind of file, no UTF-8 or UTF-16, no cue or column, or a time that is none; names the line.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{path}: transcripts are files {', '.join(ENDINGS)}; convert it to one of these")
    if ending in TABLES:
        return _of_table(path)
    text = "\n".join(text_of(path, "transcript")[0].removeprefix("\ufeff").splitlines())
    if ending == PLAIN:
        return Transcript(" ".join(text.split()))
    return Transcript.of(_of_textgrid(text, path) if ending == TEXTGRID else _of_cues(text, path))


class Transcripts:
    """The transcript, or the segments (``kind``), of each of ``clips``: a file of one, a table of many, or a folder.

    Raises:
        DataError: there is no such file, it is of none of the clips, or two files of the folder are of one clip.
    """

    def __init__(self, given: Path | str | None, kind: str, clips: Collection[str]):
        self.path = None if given is None else Path(given).expanduser()
        self.known: dict[str, Transcript] = {}
        self.files: dict[Path, dict[str, list[Path]]] = {}  # of a folder, by stem
        if self.path is None:
            return
        first = next(iter(clips))
        if self.path.is_dir():
            if not any(self._file(name) for name in clips):
                example = f"{first}.srt"
                raise DataError(f"{self.path} holds no {kind} file that is called after a clip, as {example} would be")
            return
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such {kind} file; check the path")
        read = read_transcript(self.path)
        if isinstance(read, Transcript) and len(clips) > 1:
            remedy = "give a folder with a file per clip, or a table with a column id"
            raise DataError(f"{self.path} is of one clip, and {len(clips)} are given; {remedy}")
        self.known = {first: read} if isinstance(read, Transcript) else read
        if not set(self.known) & set(clips):
            some = ", ".join(list(self.known)[:3])
            raise DataError(f"{self.path}: no row is of a clip that is given ({first!r}; found {some})")

    def read(self, name: str) -> Transcript | None:
        """What the file says of clip ``name``; ``None`` where there is none.

        Raises:
            DataError: it can't be read, or there are two files.
        """
        if self.path is None or not self.path.is_dir():
            return self.known.get(name)
        file = self._file(name)
        read = read_transcript(file) if file else None
        return read.get(name) if isinstance(read, dict) else read

    def _file(self, name: str) -> Path | None:
        """The file of clip ``name`` in the folder."""
        *above, last = name.split("$_$")
        stems = {self.path: {name}, self.path.joinpath(*above): {last, name}}
        for place in stems.keys() - self.files.keys():  # listed once for all clips
            self.files[place] = {}
            for child in sorted(os.listdir(place)) if place.is_dir() else ():
                if (file := place / child).suffix.lower() in ENDINGS:
                    self.files[place].setdefault(file.stem, []).append(file)
        found = [file for place in stems for stem in sorted(stems[place]) for file in self.files[place].get(stem, ())]
        if len(found) > 1:
            raise DataError(f"{found[0]} and {found[1].name} are both of clip {name!r}; keep one of them")
        return found[0] if found else None


def check_times(spans: Sequence[Span], duration: float, where: Path | str) -> list[Span]:
    """``spans`` cut to the clip, after checking that none overlaps the next or lies outside.

    Raises:
        DataError: one does, or ends before it starts; names it and ``where`` it is written.
    """

    def refuse(span: Span, why: str) -> NoReturn:
        what = repr(span.text[:40]) if span.text else "the part"
        raise DataError(f"{where}: {what} at {span.start:.2f} to {span.end:.2f} s {why}; mend the times")

    for span in spans:
        if span.end < span.start:
            refuse(span, "ends before it starts")
        if span.start < -BEYOND or span.end > duration + BEYOND:
            refuse(span, f"lies outside of the clip, which has {duration:.2f} s")
    for first, second in pairwise(spans):
        if second.start < first.end - OVERLAP:
            refuse(second, f"overlaps {first.text[:40]!r}, which ends at {first.end:.2f} s")
    return [Span(min(max(0.0, s.start), duration), max(0.0, min(s.end, duration)), s.text) for s in spans]


def words_of_spans(spans: Iterable[Span]) -> tuple[list[Span], int]:
    """One span per word, as the text encoders count words, and how many of their times are guessed.

    The words of a span of several share its time by their numbers of characters; these times are the guessed ones.
    """
    from mmsa_lib.data.text import words_of

    words: list[Span] = []
    guessed = 0
    for span in spans:
        pieces = [span.text[first:last] for first, last in words_of(span.text)]
        guessed += len(pieces) if len(pieces) > 1 else 0
        letters, done = sum(map(len, pieces)), 0
        for piece in pieces:
            ends = (span.start + (span.end - span.start) * n / letters for n in (done, done + len(piece)))
            words.append(Span(*ends, piece))
            done += len(piece)
    return words, guessed


def within(spans: Iterable[Span], start: float, end: float) -> list[Span]:
    """The spans whose middle lies in a segment, in seconds from its start."""
    inside = (span for span in spans if start <= (span.start + span.end) / 2 < end)
    return [Span(span.start - start, span.end - start, span.text) for span in inside]


def _column(cells: Cells, key: str) -> list[str] | None:
    """The cells of the column that holds ``key``: the first of its possible names."""
    called = {name.strip().lower().replace(" ", "_"): name for name in reversed(cells.columns)}
    return next((cells.columns[called[name]] for name in _NAMES[key] if name in called), None)


def _of_table(path: Path) -> Transcript | dict[str, Transcript]:
    cells = read_cells(path)
    start, end, said, ids, clips = (_column(cells, key) for key in ("start", "end", "text", "id", "clip"))
    if (start is None) != (end is None) or (start is None and said is None):
        found = ", ".join(list(cells.columns)[:8])
        raise DataError(f"{path}: needs columns start and end, and word or text (found {found}); name them in line 1")
    rows: dict[str, list[Span]] = {}
    for i, line in enumerate(cells.lines):
        name = "" if ids is None else ids[i].strip() + (f"$_${clips[i].strip()}" if clips else "")
        marks = ("0", "0") if start is None or end is None else (start[i], end[i])
        begins, ends = (_seconds(mark, f"{path}, line {line}") for mark in marks)
        rows.setdefault(name, []).append(Span(begins, ends, " ".join(said[i].split()) if said else ""))
    made = {name: Transcript.of(spans) for name, spans in rows.items()}
    if start is None:
        made = {name: Transcript(" ".join(span.text for span in spans)) for name, spans in rows.items()}
    return made if ids is not None else made[""]


def _seconds(text: str, where: str) -> float:
    """Seconds of ``1.5``, ``1,5``, ``-0.1``, ``0:01.5`` or ``00:00:01,500``."""
    plain = text.strip()
    sign = -1.0 if plain.startswith("-") else 1.0
    match = _CLOCK.fullmatch(plain.removeprefix("-"))
    if match is None:
        raise DataError(f"{where}: {text[:40]!r} is no time; write seconds (1.5) or h:mm:ss.s")
    hours, minutes, seconds = match[1] or 0, match[2] or 0, match[3].replace(",", ".")
    return sign * (float(hours) * 3600 + float(minutes) * 60 + float(seconds))


def _of_cues(text: str, path: Path) -> list[Span]:
    """Cues of SRT and WebVTT; a cue with times inside gives a span for each of its parts."""
    spans, lines, line, lost = [], text.split("\n"), 0, 0
    while line < len(lines):
        cue = _CUE.match(lines[line])
        line += 1
        if cue is None:  # WebVTT has notes, styles and names of cues there, SRT numbers
            beside = lines[line - 1].strip()
            lost = lost or (line if beside and not beside.isdecimal() and not text.startswith("WEBVTT") else 0)
            continue
        start, end = (_seconds(mark, f"{path}, line {line}") for mark in cue.groups())
        first = line
        while line < len(lines) and lines[line].strip() and not _CUE.match(lines[line]):
            line += 1
        following = line < len(lines) and lines[line].strip()
        said = lines[first : line - 1 if following and lines[line - 1].strip().isdecimal() else line]
        parts = _INSIDE.split("\n".join(said))
        marks = [start, *(_seconds(mark, f"{path}, line {first}") for mark in parts[1::2]), end]
        for part, (begins, ends) in zip(parts[::2], pairwise(marks), strict=True):
            if plain := " ".join(html.unescape(_TAG.sub("", part)).split()):
                spans.append(Span(begins, ends, plain))
    if not spans:
        raise DataError(f"{path}: no cue with text (00:00:01,000 --> 00:00:02,500, and below it what is said)")
    if lost:
        what = f"{lines[lost - 1].strip()[:40]!r} belongs to no cue"
        raise DataError(f"{path}, line {lost}: {what}; mend the line of times above it, or remove it")
    return spans


def _of_textgrid(text: str, path: Path) -> list[Span]:
    """The words of a TextGrid: in both forms the same values stand in the same order."""
    values = [quoted.replace('""', '"') if number == "" else float(number) for quoted, number in _VALUE.findall(text)]
    tiers: dict[str, list[Span]] = {}
    try:
        if values[:2] != ["ooTextFile", "TextGrid"]:
            raise ValueError("it does not begin as one")
        place = 5  # behind both words, start, end and the number of tiers
        for _ in range(int(values[4])):
            kind, name, _, _, count = values[place : place + 5]
            step = {"IntervalTier": 3, "TextTier": 2}[kind]
            rows = values[place + 5 : place + 5 + step * int(count)]
            if len(rows) != step * int(count):
                raise ValueError("it ends too early")
            place += 5 + len(rows)
            if step == 3:
                tiers[str(name)] = [
                    Span(*map(float, rows[i : i + 2]), str(rows[i + 2])) for i in range(0, len(rows), 3)
                ]
        if place < len(values):
            raise ValueError("it holds more than it announces")
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise DataError(f"{path} is no whole TextGrid ({error}); save it anew from Praat or the aligner") from error
    named = [name for name in tiers if re.search(r"\bwords?$", name.strip(), re.IGNORECASE)]
    chosen = named or list(tiers)
    if len(chosen) != 1:
        found = ", ".join(tiers) or "none"
        raise DataError(f"{path}: which tier of intervals is meant? Call it words (found: {found})")
    spans = [Span(s.start, s.end, " ".join(s.text.split())) for s in tiers[chosen[0]]]
    return [span for span in spans if span.text.lower() not in _PAUSES]
