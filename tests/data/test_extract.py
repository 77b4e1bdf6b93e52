"""Own videos: decoding, alignment, the folder of samples; with the real extractors where they are installed."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from data.media_files import RATE, write_video, write_wav
from filelock import FileLock

from mmsa_lib.data import extract as module
from mmsa_lib.data import extractors
from mmsa_lib.data.extractors import Series
from mmsa_lib.data.media import Sound, decode_pictures, decode_sound
from mmsa_lib.data.sources.table import read
from mmsa_lib.data.transcripts import Span
from mmsa_lib.errors import ConfigError, DataError

av = pytest.importorskip("av")


@pytest.fixture
def extract(monkeypatch, tmp_path):
    """``extract`` into ``tmp_path/out`` with two descriptors of our own per 10 ms: the time, and how loud it is."""

    def descriptors(sound):
        if len(sound.samples) < 160:
            return None
        loud = np.abs(sound.samples[: len(sound.samples) // 160 * 160]).reshape(-1, 160).max(axis=1)
        times = np.arange(len(loud)) * 0.01 + 0.005
        return Series(times, np.stack([times, loud], axis=1).astype(np.float32), 0.01)

    monkeypatch.setattr(module, "need", lambda *_: None)
    monkeypatch.setattr(extractors, "descriptors", descriptors)
    monkeypatch.setattr(extractors, "describe_sound", lambda: {"columns": ["time", "loud"]})
    return lambda media, **more: module.extract(media, **{"out": tmp_path / "out", "vision": "none", **more})


def rows_of(tmp_path, name="a"):
    return np.load(tmp_path / "out" / "audio" / f"{name}.npy")


# ---- decoding


@pytest.mark.parametrize(("name", "rate", "channels"), [("a.wav", 44_100, 2), ("a.mp4", RATE, 1), ("a.mkv", RATE, 1)])
def test_sound_is_mono_at_one_rate_with_its_pitch(name, rate, channels, tmp_path):
    path = tmp_path / name
    write_wav(path, 2.0, 440, rate, channels=channels) if name == "a.wav" else write_video(path, 2.0, sound=440)
    sound = decode_sound(path)
    assert len(sound.samples) == pytest.approx(2.0 * RATE, abs=0.05 * RATE)
    middle = sound.samples[RATE // 2 : RATE // 2 + RATE]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 440
    assert not sound.silent


def test_so_many_pictures_are_looked_at_as_were_asked_for(tmp_path):
    path = write_video(tmp_path / "a.mp4", 2.0, fps=10)
    seen = [(time, picture) for time, picture in decode_pictures(path, 4) if picture is not None]
    assert [time for time, _ in seen] == pytest.approx([0.0, 0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 1.8])
    assert [round(int(picture[20, 20, 0]), -1) for _, picture in seen] == [0, 30, 50, 80, 100, 130, 150, 180]
    assert sum(picture is not None for _, picture in decode_pictures(path, 100)) == 20
    assert decode_sound(path) is None


# ---- alignment


def test_rows_of_words_are_the_mean_over_their_time():
    generator = np.random.default_rng(0)
    times, rows = np.arange(50) * 0.1, generator.normal(size=(50, 3)).astype(np.float32)
    rows[10:13] = np.nan
    words = [Span(0.0, 0.35, "a"), Span(0.91, 1.55, "b"), Span(1.0, 1.25, "c"), Span(2.02, 2.04, "d"), Span(7, 8, "e")]
    found = Series(times, rows, 0.1).per_word(words)
    for word, row in zip(words[:2], found, strict=False):
        inside = [r for t, r in zip(times, rows, strict=True) if word.start <= t < word.end and r[0] == r[0]]
        assert row == pytest.approx(sum(inside) / len(inside), abs=1e-6)
    assert np.isnan(found[2]).all()  # only rows without a face
    assert (found[3] == rows[20]).all()  # shorter than a step
    assert np.isnan(found[4]).all()


def test_words_and_segments_are_cut_from_the_clip(extract, tmp_path):
    write_wav(tmp_path / "a.wav", 3.0)
    (tmp_path / "a.csv").write_text("word,start,end\nvery,0.5,1\ngood,1,2\nfilm,2.2,2.8\n")
    extract(tmp_path / "a.wav", transcript=tmp_path / "a.csv")
    assert rows_of(tmp_path)[:, 0] == pytest.approx([0.75, 1.5, 2.5], abs=0.006)
    extract(tmp_path / "a.wav", transcript=tmp_path / "a.csv", aligned=False)
    assert rows_of(tmp_path).shape == (300, 2)
    (tmp_path / "cut.csv").write_text("start,end\n0.4,2.1\n2.1,3\n")
    result = extract(tmp_path / "a.wav", transcript=tmp_path / "a.csv", segments=tmp_path / "cut.csv")
    assert [(s["id"], s["group"], s["start"]) for s in result.samples] == [("a$_$1", "a", 0.4), ("a$_$2", "a", 2.1)]
    assert rows_of(tmp_path, "a$_$1").shape == (2, 2)
    assert (tmp_path / "out/words/a$_$1.csv").read_text() == "start,end,word\n0.100,0.600,very\n0.600,1.600,good\n"
    assert (tmp_path / "out/samples.csv").read_text() == "id,group,text\na$_$1,a,very good\na$_$2,a,film\n"
    assert not (tmp_path / "out/audio/a.npy").exists()  # of the first call


def test_the_reader_of_tables_takes_the_folder(extract, tmp_path):
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav", 1.0)
    write_wav(tmp_path / "quiet.wav", 1.0, level=0)
    write_video(tmp_path / "mute.mp4", 1.0)
    (tmp_path / "texts.csv").write_text("id,text\na,very good\nb,bad\nquiet,so so\n")
    files = [tmp_path / name for name in ("a.wav", "b.wav", "quiet.wav", "mute.mp4")]
    notes = extract(files, transcript=tmp_path / "texts.csv").notes
    assert notes["quiet"] == ["no pictures: no vision", "the sound track is silent: no audio"]
    assert notes["mute"] == ["no sound track: no audio", "no transcript: no text"]
    table = tmp_path / "out" / "samples.csv"
    lines = table.read_text().splitlines()
    splits = ["split,label", "train,1", "valid,-1", "test,2", "test,0"]
    table.write_text("".join(f"{line},{more}\n" for line, more in zip(lines, splits, strict=True)))
    record = read(tmp_path / "out", "own")
    assert record.transcripts == ["very good", "bad", "so so", ""]
    audio = record.features["audio"]
    assert audio.lengths.tolist() == [100, 100, 1, 1]
    assert audio.any_frame(audio.observed).tolist() == [True, True, False, False]


# ---- the folder


def test_finished_files_are_skipped_and_what_the_user_added_stays(extract, tmp_path):
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav", 1.0)
    both = [tmp_path / "a.wav", tmp_path / "b.wav"]
    assert extract(both).done == ["a", "b"]
    table = tmp_path / "out" / "samples.csv"
    table.write_text("id,label,group,text\na,1.5,a,mine\nb,,b,\n")
    assert extract(both).skipped == ["a", "b"]
    assert table.read_text() == "id,group,text,label\na,a,mine,1.5\nb,b,,\n"
    write_wav(tmp_path / "b.wav", 0.5)  # another content
    (tmp_path / "out" / "audio" / "a.npy").unlink()
    assert extract(both).done == ["a", "b"]
    assert len(rows_of(tmp_path, "b")) == 50
    assert table.read_text().startswith("id,group,text,label\na,a,,1.5\n")
    assert extract(both, force=True).done == ["a", "b"]
    record = json.loads((tmp_path / "out" / "extract.json").read_text())
    assert record["extractors"]["audio"]["columns"] == ["time", "loud"]
    assert record["clips"]["a"]["sha256"] == module.file_sha256(both[0])
    with pytest.raises(ConfigError, match=r"aligned=True \(clip 'b'\)"):
        extract(both[0], aligned=False)
    assert extract(both, aligned=False).done == ["a", "b"]


def test_a_bad_file_stops_no_other_and_leaves_nothing(extract, tmp_path):
    write_wav(tmp_path / "good.wav", 1.0)
    (tmp_path / "bad.mp4").write_text("hello")
    whole = write_video(tmp_path / "a.mkv", 6.0, sound=200, size=(320, 240)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "half.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:16_000])
    write_wav(tmp_path / "zero.wav", 0.0)
    expected = {"bad.mp4": "a text file", "nofile.wav": "no such file", "cut.mkv": "cut off",
                "half.wav": "cut off: 16000 of 32044 bytes", "zero.wav": "length of zero"}  # fmt: skip
    wrong = [tmp_path / name for name in expected]
    failed = extract([*wrong, tmp_path / "good.wav"]).failed
    assert [Path(name).name for name in failed] == list(expected)
    for said, reason in zip(expected.values(), failed.values(), strict=True):
        assert said in reason
        assert "\n" not in reason
    assert sorted(path.name for path in (tmp_path / "out" / "audio").iterdir()) == ["good.npy"]
    assert extract(wrong, out=tmp_path / "other").done == []
    assert not (tmp_path / "other").exists()


def test_names_and_transcripts_that_fit_nothing_are_refused(extract, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_wav(tmp_path / folder / "1.wav", 0.5)
    with pytest.raises(DataError, match="would both be sample '1'"):
        extract([tmp_path / "x" / "1.wav", tmp_path / "y" / "1.wav"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        extract(tmp_path / "x" / "1.wav")
    shutil.rmtree(tmp_path / "out")
    assert extract(tmp_path).done == ["x$_$1", "y$_$1"]
    (tmp_path / "one.srt").write_text("1\n00:00:00,000 --> 00:00:00,400\nhello\n")
    with pytest.raises(DataError, match="is of one clip, and 2 are given"):
        extract(tmp_path, transcript=tmp_path / "one.srt")
    (tmp_path / "many.csv").write_text("id,text\nz,hello\n")
    with pytest.raises(DataError, match="no row is of a clip"):
        extract(tmp_path, transcript=tmp_path / "many.csv")
    (tmp_path / "texts" / "x").mkdir(parents=True)
    with pytest.raises(DataError, match="no transcript file that is called after a clip"):
        extract(tmp_path, transcript=tmp_path / "texts")
    shutil.copy(tmp_path / "one.srt", tmp_path / "texts" / "x" / "1.srt")
    extract(tmp_path, transcript=tmp_path / "texts")
    assert (tmp_path / "out/samples.csv").read_text() == "id,group,text\nx$_$1,x,hello\ny$_$1,y,\n"
    (tmp_path / "texts" / "x" / "1.txt").write_text("hello")
    with pytest.raises(DataError, match="keep one of them"):
        extract(tmp_path, transcript=tmp_path / "texts")
    with pytest.raises(ConfigError, match="fps=0"):
        extract(tmp_path, fps=0)


def test_linked_folders_are_read_and_no_clip_takes_the_sample_of_another(extract, tmp_path):
    for name in ("media/a/1.wav", "media/a.wav", "far/b/2.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_wav(tmp_path / name, 0.5)
    (tmp_path / "media" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "circle").symlink_to(tmp_path / "media")
    (tmp_path / "cuts").mkdir()
    (tmp_path / "cuts" / "a.csv").write_text("start,end,text\n0,0.2,good\n0.2,0.4,film\n")
    found = extract(tmp_path / "media", segments=tmp_path / "cuts")
    assert found.done == ["a$_$1", "far$_$b$_$2"] == [sample["id"] for sample in found.samples]
    ((file, said),) = found.failed.items()
    assert f"{file} and 1.wav (clip 'a$_$1') would both give sample 'a$_$1'; rename one of them" in said
    with pytest.raises(ConfigError, match="samples of other options"):
        extract(tmp_path / "media" / "a.wav", aligned=False)
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(ConfigError, match="another process"):
        extract(tmp_path / "media" / "a.wav")
    assert len(extract(tmp_path / "media", segments=tmp_path / "cuts").skipped) == 2  # the lock was given back


# ---- speech recognition


def test_a_whisper_model_gives_words_with_times(tmp_path):
    transcript = extractors.recogniser(_tiny_whisper(tmp_path))(
        Sound(np.random.default_rng(0).normal(0, 0.1, 4 * RATE))
    )
    assert transcript.text
    assert transcript.spans[-1].end > 0
    for first, second in zip(transcript.spans, transcript.spans[1:], strict=False):
        assert 0 <= first.start <= first.end <= second.start <= second.end <= 4
    with pytest.raises(DataError, match=r"speech recogniser '.*nowhere' can't be loaded"):
        extractors.recogniser(str(tmp_path / "nowhere"))


def _tiny_whisper(folder, seed=3):
    """Folder of a random Whisper model whose letters are its vocabulary."""
    import torch
    import transformers
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel

    end, special = (
        "<|endoftext|>",
        ["startoftranscript", "en", "translate", "transcribe", "startofprev", "nospeech", "notimestamps"],
    )
    letters = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = transformers.WhisperTokenizerFast(vocab=letters, merges=[], unk_token=end, bos_token=end, eos_token=end)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in special]})
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", special=False, normalized=False) for i in range(1501)])
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ["endoftext", *special]}
    ends = {f"{role}_token_id": ids["endoftext"] for role in ("eos", "pad", "bos")}
    ends["decoder_start_token_id"] = ids["startoftranscript"]
    sides = {f"{side}_{size}": n for side in ("encoder", "decoder") for size, n in
             (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(vocab_size=len(tokenizer), d_model=16, max_target_positions=64, **sides, **ends)
    )
    model.generation_config = transformers.GenerationConfig(
        **ends, no_timestamps_token_id=ids["notimestamps"], prev_sot_token_id=ids["startofprev"], is_multilingual=True,
        lang_to_id={"<|en|>": ids["en"]}, task_to_id={"transcribe": ids["transcribe"], "translate": ids["translate"]},
        max_initial_timestamp_index=50, alignment_heads=[[0, 0]], max_length=40, return_timestamps=True,
        language="en", task="transcribe", suppress_tokens=[ids["endoftext"]],
    )  # fmt: skip
    model.save_pretrained(folder)
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return str(folder)


# ---- the real extractors, where they are installed (make test-extract)


@pytest.fixture
def speech(tmp_path):
    """A sentence, spoken by espeak-ng where it is installed, and else a tone that comes and goes."""
    path = tmp_path / "speech.wav"
    if shutil.which("espeak-ng"):
        subprocess.run(["espeak-ng", "-w", path, "This film was really wonderful."], check=True)
        return path
    return write_wav(path, 2.0, 150)


def test_descriptors_follow_the_sound(speech, tmp_path):
    pytest.importorskip("opensmile")
    series = extractors.descriptors(decode_sound(speech))
    columns = extractors.describe_sound()["columns"]
    assert series.rows.shape == (len(series.times), 25) == (len(series.times), len(columns))
    assert np.diff(series.times) == pytest.approx(np.full(len(series.times) - 1, 0.01))
    sound = decode_sound(speech).samples
    energy = [np.abs(sound[max(0, round((t - 0.01) * RATE)) : round((t + 0.01) * RATE)]).mean() for t in series.times]
    assert np.corrcoef(energy, series.rows[:, columns.index("Loudness_sma3")])[0, 1] > 0.7
    tone = extractors.descriptors(decode_sound(write_wav(tmp_path / "tone.wav", 1.0, 220)))
    pitch = 27.5 * 2 ** (tone.rows[20:-20, columns.index("F0semitoneFrom27.5Hz_sma3nz")] / 12)
    assert np.median(pitch) == pytest.approx(220, rel=0.02)
    assert extractors.descriptors(Sound(np.zeros(400, np.float32))) is None


@pytest.fixture
def face_clip():
    """The clip of one face that comes with the originals of the data sets."""
    path = Path(os.environ.get("MMSA_LIB_MIRROR", "/nowhere"), "demo-clips", "WolfgangLanger_Pexels.mp4")
    return path if path.is_file() else pytest.skip("set MMSA_LIB_MIRROR to a folder with demo-clips")


@pytest.mark.real_data
def test_a_real_face_has_landmarks_and_blendshapes(face_clip, tmp_path):
    pytest.importorskip("mediapipe")
    pytest.importorskip("opensmile")
    result = module.extract(face_clip, out=tmp_path / "out", fps=1, keep_first=True, progress=False)
    assert result.notes["WolfgangLanger_Pexels"] == ["the sound track is silent: no audio", "no transcript: no text"]
    rows = np.load(tmp_path / "out/vision/WolfgangLanger_Pexels.npy")
    about = json.loads((tmp_path / "out/extract.json").read_text())["extractors"]["vision"]
    assert rows.shape == (20, 52 + 3 * 478) == (20, len(about["columns"]))
    assert np.isfinite(rows).all()
    assert ((rows[:, :52] >= 0) & (rows[:, :52] <= 1)).all()
    faces = rows[:, 52:].reshape(20, 478, 3)
    assert np.abs(faces.mean(axis=1)).max() < 1e-5
    assert np.sqrt((faces**2).sum(axis=2).mean(axis=1)) == pytest.approx(np.ones(20), abs=1e-4)
    smile = rows[:, about["columns"].index("mouthSmileLeft")]
    assert smile.max() > 0.5 > smile.min()  # the face does both in this clip
    left, right = result.clip.points.min(axis=0), result.clip.points.max(axis=0)
    assert (left >= [300, 0]).all()  # the face is right of the middle of 640 x 360
    assert (right <= [600, 360]).all()


def test_pictures_without_a_face_are_no_vision(tmp_path):
    pytest.importorskip("mediapipe")
    path = write_video(tmp_path / "a.mp4", 1.0)
    result = module.extract(path, out=tmp_path / "out", audio="none", progress=False)
    assert "no face in 10 of 10 pictures: no vision" in result.notes["a"]
    assert not (tmp_path / "out" / "vision").exists()
