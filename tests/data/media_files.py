"""Small sound and video files, made here: tones, and pictures without a face."""

import wave

import numpy as np

RATE = 16_000


def write_wav(path, seconds=1.0, hertz=200.0, rate=RATE, level=0.5, channels=1):
    """A tone; ``level`` 0 is silence."""
    tone = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((tone * 32767).astype("<i2"), channels).tobytes())
    return path


def write_video(path, seconds=2.0, fps=10, sound=None, size=(64, 48)):
    """Pictures whose red is 10 times their number; with a tone of so many ``sound`` hertz."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        voice = container.add_stream("aac", rate=RATE, layout="mono") if sound else None
        for number in range(round(seconds * fps)):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            picture[..., 0] = 10 * number % 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        if voice is not None:
            tone = np.sin(2 * np.pi * sound * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)
            for start in range(0, len(tone), 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = RATE, start
                container.mux(voice.encode(frame))
            container.mux(voice.encode())
    return path
