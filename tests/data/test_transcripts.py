"""Transcripts: every form gives the same words at the same times, and what is wrong is told in one line."""

import os
import re

import pytest

from mmsa_lib.data.transcripts import (
    Span,
    Transcript,
    Transcripts,
    check_times,
    read_transcript,
    within,
    words_of_spans,
)
from mmsa_lib.errors import DataError

WORDS = [Span(0.5, 0.75, "it's"), Span(0.75, 1.25, "good"), Span(2.0, 61.5, 'a "film"')]


def clock(seconds, mark):
    return f"{int(seconds) // 3600:02}:{int(seconds) // 60 % 60:02}:{seconds % 60:06.3f}".replace(".", mark)


def srt(mark=","):
    cues = [f"{i}\n{clock(s.start, mark)} --> {clock(s.end, mark)}\n<i>{s.text}</i>\n" for i, s in enumerate(WORDS, 1)]
    return "\n".join(cues)


VTT = (
    "WEBVTT\n\nNOTE not --> said\n\nfirst\n00:00.500 --> 00:01.250 align:start\n"
    "<v Ann>it&#39;s<00:00:00.750><c> good</c>\n\n"
    '00:02.000 --> 01:01.500\na\n"film"\n'
)
CSV = 'word,start,end\nit\'s,0.5,0.75\ngood,0.75,"1,25"\n"a ""film""",2,0:01:01.5\n'
LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 70.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "clicks 1"
        xmin = 0
        xmax = 70.5
        points: size = 1
        points [1]:
            number = 0.3
            mark = "x 2"
    item [2]:
        class = "IntervalTier"
        name = "ann - words"
        xmin = 0
        xmax = 70.5
        intervals: size = 4
        intervals [1]:
            xmin = 0.5
            xmax = 0.75
            text = "it's"
        intervals [2]:
            xmin = 0.75
            xmax = 1.25
            text = "good"
        intervals [3]:
            xmin = 1.25
            xmax = 2
            text = "sp"
        intervals [4]:
            xmin = 2
            xmax = 61.5
            text = "a ""film"""
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 70.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 70.5
            text = ""
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
70.5
<exists>
1
"IntervalTier"
"anything"
0
70.5
3
0.5
0.75
"it's"
0.75
1.25
"good"
2
61.5
"a ""film"""
'''
FORMS = {
    "commas.srt": srt(),
    "points.srt": srt("."),
    "crowded.srt": re.sub(r"\n\n", "\n", srt()),
    "a.vtt": VTT,
    "a.csv": CSV,
    "a.tsv": 'Text\tbegin\tstop\nit\'s\t.5\t0.75\ngood\t0.75\t1.25\na "film"\t2\t61.5\n',
    "long.TextGrid": LONG,
    "short.textgrid": SHORT,
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be with its mark"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_in_every_encoding_gives_the_same(name, encoding, tmp_path):
    text = ("\ufeff" if "mark" in encoding else "") + FORMS[name]
    for ends in ("\n", "\r\n"):
        (tmp_path / name).write_bytes(text.replace("\n", ends).encode(encoding.split()[0]))
        found = read_transcript(tmp_path / name)
        assert list(found.spans) == WORDS
        assert found.text == 'it\'s good a "film"'


def test_a_text_has_no_times_and_a_table_of_many_clips_is_told_apart(tmp_path):
    (tmp_path / "a.txt").write_text("it's\n good\n")
    assert read_transcript(tmp_path / "a.txt") == Transcript("it's good")
    (tmp_path / "b.csv").write_text("video_id,clip_id,text\nv,1,it's good\nv,2,bad\n")
    assert read_transcript(tmp_path / "b.csv") == {"v$_$1": Transcript("it's good"), "v$_$2": Transcript("bad")}
    (tmp_path / "c.csv").write_text("id,start,end,word\nx,1,2,b\ny,0,1,c\nx,0,1,a\n")
    assert read_transcript(tmp_path / "c.csv")["x"].spans == (Span(0, 1, "a"), Span(1, 2, "b"))


def test_a_folder_is_listed_once_for_all_clips(tmp_path, monkeypatch):
    clips = [f"v{i % 2}$_${i}" for i in range(6)]
    for clip in clips:
        (tmp_path / clip[:2]).mkdir(exist_ok=True)
        (tmp_path / clip[:2] / f"{clip[5:]}.txt").write_text(clip)
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda place: listed.append(place) or listdir(place))
    transcripts = Transcripts(tmp_path, "transcript", clips)
    assert [transcripts.read(clip).text for clip in clips] == clips
    assert sorted(listed) == [tmp_path, tmp_path / "v0", tmp_path / "v1"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.srt", b"caf\xe9", "line 1 is not UTF-8"),
        ("a.srt", b"hello", "no cue with text"),
        ("a.srt", b"1\n00:00:01,000 --> soon\nhello\n", "line 2: 'soon' is no time"),
        ("a.vtt", b"", "an empty file"),
        ("a.csv", b"word,start\nhello,1\n", "needs columns start and end"),
        ("a.csv", b"word,start,end\nhello,1,x\n", "line 2: 'x' is no time"),
        ("a.csv", b"word,start,end\nhello,nan,2\n", "'nan' is no time"),
        ("a.TextGrid", LONG[:-200].encode(), "is no whole TextGrid"),
        ("a.TextGrid", b"hello", "is no whole TextGrid"),
        ("a.TextGrid", LONG.replace("ann - words", "ann").encode(), "which tier of intervals is meant"),
        ("a.TextGrid", SHORT.replace("\n3\n", "\n1e400\n").encode(), "is no whole TextGrid"),
        ("a.TextGrid", SHORT.replace("\n3\n", "\n2\n").encode(), "it holds more than it announces"),
        ("a.srt", srt().replace("-->", "->", 1).encode(), "line 2: '00:00:00,500 -> 00:00:00,750' belongs to no cue"),
        ("a.docx", b"hello", "transcripts are files"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_transcript(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([(0, 1, "a"), (0.9, 2, "b")], "'b' at 0.90 to 2.00 s overlaps 'a', which ends at 1.00 s"),
        ([(0, 1, "a"), (9, 10.3, "b")], "'b' at 9.00 to 10.30 s lies outside of the clip, which has 10.00 s"),
        ([(-0.3, 1, "a")], "lies outside"),
        ([(2, 1, "a")], "ends before it starts"),
    ],
)
def test_times_that_cannot_be_are_refused(spans, said):
    with pytest.raises(DataError, match=said):
        check_times([Span(*span) for span in spans], 10.0, "a.srt")


def test_what_aligners_round_is_cut_to_the_clip():
    spans = [Span(-0.14, 1.0, "a"), Span(0.97, 2.0, "b"), Span(9.0, 10.2, "c")]
    assert check_times(spans, 10.0, "") == [Span(0.0, 1.0, "a"), Span(0.97, 2.0, "b"), Span(9.0, 10.0, "c")]


def test_a_time_of_too_many_digits_lies_outside(tmp_path):
    (tmp_path / "a.srt").write_text("00:00:00,000 --> " + "9" * 5000 + ":00:01,000\nhello\n")
    with pytest.raises(DataError, match="lies outside of the clip"):
        check_times(read_transcript(tmp_path / "a.srt").spans, 9.0, "a.srt")


def test_words_share_the_time_of_their_line_by_their_letters():
    words, guessed = words_of_spans([Span(1, 2, "one"), Span(2, 5, "very good"), Span(5, 6, "很好"), Span(6, 7, "")])
    assert guessed == 4
    assert [word.text for word in words] == ["one", "very", "good", "很", "好"]
    assert [(word.start, word.end) for word in words] == [(1, 2), (2, 3.5), (3.5, 5), (5, 5.5), (5.5, 6)]


def test_a_segment_has_the_words_whose_middle_lies_in_it():
    words = [Span(0, 1, "a"), Span(1, 2, "b"), Span(2, 3, "c")]
    assert within(words, 0.6, 2.4) == [Span(pytest.approx(0.4), pytest.approx(1.4), "b")]
