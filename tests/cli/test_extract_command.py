"""``mmsa-lib extract``: what it prints, its exit codes, and errors in one line."""

import json

import pytest
from data.media_files import write_video, write_wav

from mmsa_lib.cli import main

pytest.importorskip("av")
QUIET = ("--vision", "none", "--audio", "none", "--quiet")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(["extract", *map(str, words)])
        return code, *capsys.readouterr()

    return call


def test_samples_are_told_and_drawn(run, tmp_path):
    write_video(tmp_path / "a.mp4", 1.0, sound=200)
    (tmp_path / "a.srt").write_text("1\n00:00:00,100 --> 00:00:00,900\nvery good\n")
    code, out, err = run("a.mp4", "--transcript", "a.srt", "--picture", "a.png", *QUIET)
    assert code == 0
    assert out.splitlines()[:2] == [
        "a: 2 words with times",
        "1 samples in extracted; 0 files were finished before",
    ]
    assert "the times of 2 of 2 words are guessed" in err
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = run("a.mp4", "--transcript", "a.srt", "--json", *QUIET)
    report = json.loads(out)
    assert (code, report["skipped"], report["done"], report["samples"][0]["rows"]) == (0, ["a"], [], {"words": 2})


def test_one_bad_file_of_many_gives_1_and_a_lone_one_2(run, tmp_path):
    write_wav(tmp_path / "good.wav", 0.5)
    (tmp_path / "bad.mp4").write_text("hello")
    code, out, err = run("bad.mp4", "good.wav", *QUIET)
    assert code == 1
    assert "good: " in out
    assert "failed: bad.mp4: no video or sound" in err
    code, out, err = run("bad.mp4", "--out", "other", *QUIET)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("transcript", "said"),
    [
        ("1\n00:00:00,000 --> 00:00:00,300\na\n\n2\n00:00:00,100 --> 00:00:00,400\nb\n", "overlaps 'a'"),
        ("1\n00:00:00,000 --> 00:00:09,000\na\n", "lies outside of the clip, which has 0.50 s"),
        ("hello", "no cue with text"),
    ],
)
def test_a_wrong_transcript_is_one_line(run, tmp_path, transcript, said):
    write_wav(tmp_path / "a.wav", 0.5)
    (tmp_path / "a.srt").write_text(transcript)
    code, out, err = run("a.wav", "--transcript", "a.srt", *QUIET)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.wav", "--fps", "0"], "fps=0"),
        (["a.wav", "--vision", "all"], "invalid choice"),
        (["a.wav", "--transcript", "no.srt"], "no.srt: no such transcript file"),
        (["a.wav", "--face-model", "no.task", "--vision", "landmarks"], "no.task: no such face model"),
        (["empty"], "empty holds no video or audio file"),
    ],
)
def test_wrong_options_are_one_line(run, tmp_path, words, said):
    write_wav(tmp_path / "a.wav", 0.5)
    (tmp_path / "empty").mkdir()
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "extracted").exists()


def test_a_missing_package_is_named(run, tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", 0.5)
    monkeypatch.setattr("mmsa_lib.data.media.find_spec", lambda name: None if name == "opensmile" else name)
    code, _, err = run("a.wav", "--vision", "none")
    assert code == 2
    assert "extraction needs opensmile, not installed here; run: pip install" in err
