"""Moving pictures: what goes in comes out with its times, sound and shape; damage, signals and strangers' files."""

import io
import os
import signal
import struct
from argparse import Namespace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, make_dataset, noise_image, run_process
from PIL import Image

from inference import clips
from inference.clip_writers import KINDS, in_ticks
from readers import videos
from readers.clips import by_number, is_clip, open_clip
from readers.domains import PICTURES
from readers.moving import Frame
from readers.pictures import load_image
from readers.videos import turned
from runtime.errors import UserError
from runtime.folders import WRITTEN

av = pytest.importorskip("av")
RATE, SAMPLES = 25, 1920  # frames and samples of sound a second and a frame


def make_video(path, times=range(0, 800, 40), size=(32, 24), sound="aac", rotation=None, aspect=1, kind=None, **more):
    """A video whose frame number i has the brightness 8·i, at ``times`` in milliseconds."""
    height, width = size[::-1]
    with open(path, "wb") as file, av.open(file, "w", format=kind or "mp4", options=more.get("options", {})) as sink:
        stream = sink.add_stream(more.get("codec", "libx264"), rate=RATE, options={"crf": "1", "bf": "0", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, more.get("pix_fmt", "yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        sounding = sink.add_stream(sound, rate=48000, layout="mono") if sound else None
        for i, time in enumerate(times):
            picture = np.full((height, width, 3), 8 * i % 256, np.uint8)
            picture[:4, : width // 2] = 255  # what is up, and what is left
            if more.get("noise"):
                picture = np.random.default_rng(i).integers(0, 256, picture.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            sink.mux(stream.encode(frame))
            if sounding:
                wave = (np.sin(np.arange(SAMPLES) / 20) / 4).astype(np.float32)[None]
                samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                samples.rate, samples.pts, samples.time_base = 48000, i * SAMPLES, Fraction(1, 48000)
                sink.mux(sounding.encode(samples))
        for stream in sink.streams:
            sink.mux(stream.encode(None))
    return path


def look(path):
    """(frames as RGB, their times, width by height of a pixel, sound's codec or None, format of the pixels)."""
    with av.open(str(path)) as source:
        video = source.streams.video[0]
        sound = [stream.codec_context.name for stream in source.streams.audio]
        frames = list(source.decode(video))
        times = [float(frame.pts * frame.time_base) for frame in frames]
        pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
        return pictures, times, video.sample_aspect_ratio or 1, sound, frames[0].format.name


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    make_dataset(place / "datasets/tiny")
    result = run_process("cycle_gan.py", *TINY, "--n_epochs=1", "--sample_interval=0", cwd=place)
    assert result.returncode == 0, result.stderr
    return place


@pytest.fixture
def trained(model, tmp_path, monkeypatch):
    """An empty working directory with a trained model."""
    (tmp_path / "saved_models").symlink_to(model / "saved_models")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def same(trained, run, monkeypatch):
    """``same(*flags)``: test.py, whose network changes nothing: so what comes out can be compared with what went in."""
    monkeypatch.setattr("translators.Translators.translate", lambda self, side, x: (x, None))
    return lambda *flags: run("test", "--dataset_name=tiny", "--direction=AtoB", "--device=cpu", *flags)


# ---- what stays ----


@pytest.mark.parametrize("output", ["out.mp4", "out.mkv", "out.mov", "out.webm"])
def test_frames_times_aspect_and_sound_stay(same, output):
    times = [0, 40, 80, 200, 240, 500, 540]  # a variable frame rate
    make_video("clip.mp4", times, aspect=Fraction(4, 3))
    result = same("--input=clip.mp4", f"--output={output}", "--crf=1")
    assert result.code == 0 and "7 frames are in" in result.out, result.err
    before, after = look("clip.mp4"), look(output)
    assert np.allclose(np.diff(after[1]), np.diff(times) / 1000, atol=1.1e-3)
    assert after[2] == (1 if output == "out.webm" else Fraction(4, 3))
    assert np.abs(np.stack(after[0]).astype(int) - np.stack(before[0])).mean() < 3
    assert after[3] == (["opus"] if output == "out.webm" else ["aac"]) and after[4] == "yuv420p"


def test_sound_that_fits_is_copied_bit_by_bit(same):
    make_video("clip.mp4")
    assert same("--input=clip.mp4", "--output=out.mp4").code == 0

    def packets(path):
        with av.open(str(path)) as source:
            return [bytes(packet) for packet in source.demux(source.streams.audio[0]) if packet.size]

    assert packets("clip.mp4") == packets("out.mp4") and len(packets("clip.mp4")) > 10


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="an older PyAV cannot make such a file")
@pytest.mark.parametrize(
    ("kind", "codec", "rate", "layout"),
    [
        ("avi", "pcm_s16le", 44100, "stereo"),  # two channels, of which the file does not say where they are
        ("avi", "pcm_mulaw", 8000, "mono"),
        ("matroska", "pcm_s24le", 48000, "stereo"),
        ("matroska", "wavpack", 192000, "stereo"),
        ("matroska", "wavpack", 44100, "quad"),
        ("matroska", "ac3", 48000, "5.1(side)"),
        ("matroska", "flac", 96000, "stereo"),
        ("matroska", "libopus", 48000, "stereo"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_sound_of_every_kind_gets_into_every_container(tmp_path, kind, codec, rate, layout, suffix):
    with open(tmp_path / "in", "wb") as file, av.open(file, "w", format=kind) as sink:
        video, sound = sink.add_stream("mpeg4", rate=10), sink.add_stream(codec, rate=rate, layout=layout)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for number in range(5):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * number, np.uint8), format="rgb24")
            picture.pts = number
            sink.mux(video.encode(picture))
        silence = np.zeros((1, rate // 2 * sound.codec_context.layout.nb_channels), np.int16)
        samples = av.AudioFrame.from_ndarray(silence, format="s16", layout=layout)
        samples.sample_rate, samples.pts = rate, 0
        sink.mux(sound.encode(samples))
        for stream in sink.streams:
            sink.mux(stream.encode(None))
    clip = videos.clip(tmp_path / "in", PICTURES)
    options, stop = Namespace(codec="auto", crf=30), Namespace(received=0)
    with open(tmp_path / "out", "wb") as file:
        KINDS[suffix].write(clip.read(), file, KINDS[suffix], clip, options, stop)
    with av.open(str(tmp_path / "out")) as made:
        (stream,) = made.streams.audio
        seconds = sum(part.samples / part.sample_rate for part in made.decode(stream))
    assert seconds == pytest.approx(0.5, abs=0.05) and clip.problems == []


def test_a_video_of_an_unknown_codec_is_named(tmp_path):
    path = make_video(tmp_path / "a.avi", kind="avi", codec="mpeg4", sound=None)
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZQXJ").replace(b"fmp4", b"zqxj"))
    with pytest.raises(UserError, match="this PyAV does not have its codec"):
        videos.clip(path, PICTURES)


def test_the_still_picture_of_an_animated_png_is_no_frame(tmp_path):
    first, *rest = (Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue"))
    first.save(tmp_path / "a.png", save_all=True, append_images=rest, default_image=True, duration=[200, 300])
    clip = open_clip(tmp_path / "a.png", PICTURES)
    shown = [(frame.array[0, 0].tolist(), float(frame.time), float(frame.duration)) for frame in clip.read()]
    assert clip.count == 2 and shown == [([0, 128, 0], 0, 0.2), ([0, 0, 255], 0.2, 0.3)]


@pytest.mark.parametrize(("suffix", "width", "count"), [(".gif", 8, 70), (".gif", 70000, 2), (".webp", 20000, 2)])
def test_what_an_animated_picture_cannot_hold_is_said(suffix, width, count):
    frames = (
        Frame(np.full((8, width, 3), i * (width > 8), np.uint8), Fraction(10 * i), Fraction(10)) for i in range(count)
    )
    with pytest.raises(UserError, match="cannot hold this clip .*; write an .mp4"):
        KINDS[suffix].write(frames, io.BytesIO(), KINDS[suffix], Namespace(loops=0), Namespace(), Namespace(received=0))


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_turned_video_comes_out_upright(same, turn):
    make_video("clip.mp4", rotation=turn, aspect=Fraction(2, 1))
    assert same("--input=clip.mp4", "--output=out.mp4", "--crf=1").code == 0
    pictures, _, aspect, _, _ = look("out.mp4")
    upright = np.rot90(look("clip.mp4")[0][5], turn // 90)
    assert pictures[5].shape == upright.shape and np.abs(pictures[5].astype(int) - upright).mean() < 3
    assert aspect == (2 if turn == 180 else Fraction(1, 2))
    with av.open("out.mp4") as source:
        assert next(source.decode(video=0)).rotation == 0


FIXED = 2**16  # 1 in the numbers of a matrix
MATRICES = {
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): lambda x: np.rot90(x),
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(x.swapaxes(0, 1), 2),
}


@pytest.mark.parametrize(("matrix", "expected"), MATRICES.items())
def test_a_display_matrix_turns_and_mirrors(matrix, expected):
    """x' = a x + c y and y' = b x + d y, with y downwards."""
    a, b, c, d = (FIXED * number for number in matrix)
    pixels = np.arange(12).reshape(3, 4, 1)
    found = turned(pixels, struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 2**30))
    assert np.array_equal(found, expected(pixels)) and turned(pixels, None) is pixels


def test_a_mirrored_video_comes_out_as_it_is_seen(same):
    content = bytearray(Path(make_video("clip.mp4", sound=None)).read_bytes())
    place = content.index(b"tkhd") + 44  # of the matrix
    content[place : place + 36] = struct.pack(">9i", -FIXED, 0, 0, 0, FIXED, 0, 0, 0, 2**30)
    Path("mirrored.mp4").write_bytes(content)
    assert same("--input=mirrored.mp4", "--output=out.mp4", "--crf=1").code == 0
    assert np.abs(look("out.mp4")[0][5].astype(int) - look("clip.mp4")[0][5][:, ::-1]).mean() < 3


@pytest.mark.skipif("libvpx-vp9" not in av.codecs_available, reason="this PyAV has no VP9 of libvpx")
def test_transparency_of_vp9_is_over_white(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as sink:
        stream = sink.add_stream("libvpx-vp9", rate=RATE, options={"crf": "1", "b": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuva420p"
        pixels = np.zeros((32, 32, 4), np.uint8)
        pixels[:, 16:, 3] = 255
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva420p")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            sink.mux(packet)
    (frame,) = open_clip(tmp_path / "a.webm", PICTURES).read()
    assert frame.array[:, :14].min() > 250 and frame.array[:, 18:].max() < 5


def test_an_odd_size_gets_one_more_row_and_column(same):
    make_video("clip.mkv", size=(33, 25), kind="matroska", codec="ffv1", pix_fmt="bgr0", sound=None)
    assert same("--input=clip.mkv", "--output=out.mp4", "--crf=1").code == 0
    pictures = look("out.mp4")[0]
    assert pictures[3].shape == (26, 34, 3)
    assert np.abs(pictures[3][:25, :33].astype(int) - look("clip.mkv")[0][3]).mean() < 3


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx265", "yuv420p10le"), ("ffv1", "yuva420p"), ("ffv1", "gray16le")])
def test_other_depths_and_alpha(same, codec, pix_fmt):
    make_video("clip.mkv", kind="matroska", codec=codec, pix_fmt=pix_fmt, sound=None)
    result = same("--input=clip.mkv", "--output=out.mp4")
    assert result.code == 0, result.err
    assert abs(look("out.mp4")[0][10][20].mean() - 80) < 4


def test_compare_shows_both(same):
    make_video("clip.mp4")
    assert same("--input=clip.mp4", "--output=out.mp4", "--compare", "--crf=1").code == 0
    picture = look("out.mp4")[0][10]
    assert picture.shape == (24, 64, 3) and np.abs(picture[:, :32].astype(int) - picture[:, 32:]).mean() < 2


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animated_pictures_keep_their_times(same, kind):
    frames = [Image.new("RGB", (23, 18), (20 * i, 100, 50)) for i in range(5)]
    durations = [40, 80, 40, 120, 200]
    frames[0].save(f"in.{kind}", save_all=True, append_images=frames[1:], duration=durations, loop=3)
    assert is_clip(f"in.{kind}")
    result = same(f"--input=in.{kind}", f"--output=out.{kind}")
    assert result.code == 0, result.err
    with Image.open(f"out.{kind}") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (5, (23, 18), 3)
        found = []
        for number in range(5):
            image.seek(number)
            image.load()
            found.append(image.info["duration"])
            assert np.abs(np.asarray(image.convert("RGB")).mean((0, 1)) - (20 * number, 100, 50)).max() < 6
    assert found == durations
    assert same(f"--input=in.{kind}", "--output=out.mp4").code == 0
    assert np.allclose(look("out.mp4")[1], np.cumsum([0, *durations[:-1]]) / 1000, atol=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
def test_a_clip_is_as_long_as_it_was_to_the_end_of_its_last_frame(same, suffix):
    durations = [100, 50, 200, 100, 330] if suffix in (".mkv", ".webm") else [200] * 5
    pictures = [noise_image(i, 24, 32) for i in range(len(durations))]
    pictures[0].save("clip.gif", save_all=True, append_images=pictures[1:], duration=durations, disposal=1)
    assert same("--input=clip.gif", f"--output=out{suffix}").code == 0
    with av.open(f"out{suffix}") as source:
        assert float(source.duration / 1e6) == pytest.approx(sum(durations) / 1000, abs=2e-3)
    again = same(f"--input=out{suffix}", "--output=again.mp4")  # which is not cut short, though its rate varies
    assert again.code == 0 and "warning" not in again.err and "5 frames are in" in again.out


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
def test_a_rate_is_that_of_the_first_frames(trained, kind):
    pictures = [noise_image(i) for i in range(4)]
    pictures[0].save(f"clip.{kind}", save_all=True, append_images=pictures[1:], duration=20, lossless=True)
    assert open_clip(Path(f"clip.{kind}"), PICTURES).rate == 50


def test_flags_that_do_nothing_for_a_file_are_refused(trained, says):
    make_video("clip.mp4")
    for flags in (["--frames"], ["--frames", "--fps=9"]):
        assert "--frames is for numbered frames, and clip.mp4 is a file" in says("--input=clip.mp4", *flags)
    line = says("--input=clip.mp4", "--output=out.mp4", "--output_format=tif")
    assert "--output_format is for images, and here a video is written" in line
    Path("shots").mkdir()
    noise_image(0).save("shots/0.png")
    line = says("--input=shots", "--frames", "--fps=3", "--output=out")
    assert "--fps is of a video's file, and out is a folder" in line


def test_numbered_frames_in_their_order(same):
    os.mkdir("shots")
    for i in (1, 2, 9, 10, 11, 100):
        Image.new("RGB", (24, 16), (2 * i, 2 * i, 2 * i)).save(f"shots/f{i}.png")
    assert same("--input=shots", "--output=out.mp4", "--frames", "--fps=10", "--crf=1").code == 0
    pictures, times, *_ = look("out.mp4")
    assert np.allclose(times, np.arange(6) / 10, atol=1e-3)
    assert np.allclose([picture.mean() for picture in pictures], [2, 4, 18, 20, 22, 200], atol=3)
    assert same("--input=shots", "--output=out", "--frames").code == 0
    made = sorted(set(os.listdir("out")) - {WRITTEN}, key=by_number)
    assert made == [f"f{i}.png" for i in (1, 2, 9, 10, 11, 100)]
    for name in made:
        assert (np.asarray(Image.open(f"out/{name}")) == np.asarray(Image.open(f"shots/{name}"))).all()


# ---- what goes wrong ----


@pytest.fixture
def says(trained, refused):
    """``says(*flags)``: the line with which test.py refuses; nothing is left behind."""

    def call(*flags):
        before = set(os.listdir())
        line = refused("test", "--dataset_name=tiny", "--direction=AtoB", "--device=cpu", *flags)
        assert set(os.listdir()) - {WRITTEN} == before - {WRITTEN}
        return line

    return call


def test_bad_videos_and_outputs_are_one_line(says, monkeypatch):
    make_video("clip.mp4", range(0, 200, 40))
    for name, content in (("empty.mp4", b""), ("junk.mp4", os.urandom(4000)), ("text.mkv", b"hello\n" * 50)):
        with open(name, "wb") as file:
            file.write(content)
        assert f"{name} is no image, and not a readable video" in says(f"--input={name}", "--output=out.mp4")
    with open("sound.m4a", "wb") as file, av.open(file, "w", format="mp4") as sink:
        stream = sink.add_stream("aac", rate=48000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        samples.rate = 48000
        sink.mux([*stream.encode(samples), *stream.encode(None)])
    assert "it has no video stream" in says("--input=sound.m4a", "--output=out.mp4")
    with open("mine.mp4", "w") as file:
        file.write("somebody's")
    assert "is there already" in says("--input=clip.mp4", "--output=mine.mp4")
    assert "no kind of video is called .xyz" in says("--input=clip.mp4", "--output=out.xyz")
    assert "would overwrite" in says("--input=clip.mp4", "--output=clip.mp4")
    assert "--codec nothing cannot be" in says("--input=clip.mp4", "--output=out.mp4", "--codec=nothing")
    assert "--codec libx264 cannot be" in says("--input=clip.mp4", "--output=out.webm", "--codec=libx264")
    assert "--codec aac cannot be" in says("--input=clip.mp4", "--output=out.mp4", "--codec=aac")
    assert "it goes with --steady" in says("--input=clip.mp4", "--output=out.mp4", "--passes=2", "--steady=0")
    assert "a frame takes" in says("--input=clip.mp4", "--output=out.mp4", "--decoded_limit=1e-6")
    monkeypatch.setattr("inference.clips.replacing", full)
    assert "No space left on device" in says("--input=clip.mp4", "--output=out.mp4")


class full:
    """A disk that is full half way."""

    def __init__(self, path):
        self.left = 600

    def __enter__(self):
        self.file = io.BytesIO()
        return self

    def __exit__(self, *exception):
        pass

    def write(self, content):
        self.left -= len(content)
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(content)

    def seek(self, *where):
        return self.file.seek(*where)

    def tell(self):
        return self.file.tell()


def test_without_the_library(says, monkeypatch):
    make_video("clip.mp4", range(0, 200, 40))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert "pip install -r requirements-video.txt" in says("--input=clip.mp4", "--output=out.mp4")


PLAYLISTS = {
    "x.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{clip}\n#EXT-X-ENDLIST\n",
    "x.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n",
    "x.txt": "ffconcat version 1.0\nfile {clip}\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_no_other_file(says, name):
    clip = os.path.abspath(make_video("clip.mp4"))
    with open(name, "w") as file:
        file.write(PLAYLISTS[name].format(clip=clip))
    if name != "x.txt":  # so these do lead there, where nothing forbids it
        with av.open(name, options={"safe": "0"} if "concat" in name else {"allowed_extensions": "ALL"}) as source:
            assert len(list(source.decode(video=0))) == 20
    assert f"{name} is no image, and not a readable video" in says(f"--input={name}", "--output=out.mp4")


@pytest.mark.parametrize("kind", ["matroska", "mpegts", "mp4"])
def test_a_damaged_video_goes_as_far_as_it_can(same, kind):
    options = {"movflags": "frag_keyframe+empty_moov"} if kind == "mp4" else {}
    path = make_video("clip.bin", size=(64, 48), kind=kind, options=options, sound=None, noise=True)
    content = bytearray(path_bytes(path))
    cut, middle = content[: len(content) * 3 // 4], len(content) // 2
    content[middle : middle * 5 // 4] = np.random.default_rng(0).bytes(middle * 5 // 4 - middle)
    for name, damaged in (("cut.mp4", cut), ("holes.mp4", content)):
        with open(name, "wb") as file:
            file.write(damaged)
        result = same(f"--input={name}", "--output=out.mp4")
        assert result.code == 0, result.err
        assert 5 <= len(look("out.mp4")[0]) < 20
        if kind == "matroska":  # the others do not tell how long they are
            assert f"{name} is damaged or cut short" in result.err or f"{name} is cut short" in result.err


def path_bytes(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("output", ["out.mp4", "out.gif"])
def test_a_signal_leaves_what_is_done_under_another_name(same, monkeypatch, output):
    make_video("clip.mp4")
    plain, seen = clips.side_by_side, []

    def interrupted(*pictures):
        seen.append(1)
        if len(seen) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*pictures)

    monkeypatch.setattr(clips, "side_by_side", interrupted)
    result = same("--input=clip.mp4", f"--output={output}", "--compare", "--batch_size=1")
    partial = output.replace("out", "out.partial")
    assert result.code == 130 and f"8 frames are in {partial}" in result.out
    assert not os.path.exists(output) and len(look(partial)[0]) == 8
    assert not [name for name in os.listdir() if name.endswith(".tmp")]


def test_frames_of_another_size_are_no_video(same, says):
    os.mkdir("shots")
    for i in range(4):
        noise_image(i, 18, 20 + 4 * (i > 1)).save(f"shots/{i}.png")
    for output in ("out.mp4", "out.gif"):
        assert "frame 3 is 24×18 pixels and the first is 20×18" in says(
            "--frames", "--input=shots", f"--output={output}"
        )
    assert not [name for name in os.listdir() if name.startswith("out") or name.endswith(".tmp")]
    assert "takes a folder or an archive" in says("--frames", "--input=shots/0.png", "--output=out.gif")


@pytest.mark.parametrize(("rate", "tick", "least"), [(30, 100, 2), (60, 100, 2), (60, 1000, 1), (24, 100, 2)])
def test_no_rounding_of_durations_adds_up(rate, tick, least):
    rate, tick = Fraction(rate), Fraction(1, tick)
    frames = [Frame(None, number / rate, 1 / rate) for number in range(300)]
    counts = in_ticks(frames, tick, least)
    assert min(counts) >= least
    if 1 / rate >= least * tick:
        assert all(abs(sum(counts[: n + 1]) * tick - (n + 1) / rate) <= tick / 2 for n in range(300))
    else:
        assert set(counts) == {least}


def test_bad_frames_are_left_out_if_asked(same, says):
    os.mkdir("shots")
    for i in (1, 3):
        noise_image(i, 18, 20).save(f"shots/{i}.png")
    with open("shots/2.png", "w") as file:
        file.write("no image")
    flags = "--frames", "--input=shots", "--output=out.gif"
    assert "2.png is not a readable image" in says(*flags)
    result = same(*flags, "--skip_bad_images")
    assert "2.png cannot be read, and is left out" in result.err and Image.open("out.gif").n_frames == 2
    assert same("--frames", "--input=shots", "--output=apart", "--skip_bad_images").code == 0
    for name in ("1.png", "3.png"):  # each under its own name
        assert np.array_equal(load_image(f"apart/{name}"), load_image(f"shots/{name}"))
    assert not Path("apart/2.png").exists()
    for path in Path("shots").iterdir():
        path.write_bytes(b"no picture")
    assert "not one frame of shots" in says("--frames", "--input=shots", "--output=none.gif", "--skip_bad_images")


def test_recordings_one_after_another(same):
    """Of which each begins at the same time: their times go on."""
    make_video("one.ts", range(0, 400, 40), kind="mpegts", sound=None)
    with open("one.ts", "rb") as file:
        content = file.read()
    with open("two.ts", "wb") as file:
        file.write(content + content)
    assert same("--input=two.ts", "--output=out.mp4").code == 0
    frames, times, *_ = look("out.mp4")
    assert len(frames) == 20 and times == pytest.approx([0.04 * i for i in range(20)], abs=0.002)


def test_values_outside_of_the_range_are_counted(same, monkeypatch):
    os.mkdir("shots")
    for i, value in enumerate((50, 99, 120)):
        Image.new("L", (8, 10), value).save(f"shots/{i}.png")
    ranges = {side: PICTURES._replace(high=100.0) for side in "AB"}
    monkeypatch.setattr("readers.domains.domains_of", lambda state, limit: ranges)
    result = same("--input=shots", "--output=out", "--frames")
    assert result.code == 0 and "240 of 720 values lay outside of 0 to 100, and were clipped" in result.out
    assert [np.asarray(Image.open(f"out/{i}.png")).max() for i in range(3)] == [50, 99, 100]


def test_names_are_sorted_by_their_numbers():
    names = ["f2.png", "f10.png", "f010a.png", "f" + "9" * 5000 + ".png", "f1.png", "²", "f007.png"]
    assert sorted(names, key=by_number) == ["f1.png", "f2.png", "f007.png", "f10.png", "f010a.png", names[3], "²"]


def test_frames_of_another_size_in_a_folder(same, says):
    os.mkdir("shots")
    for i in range(4):
        noise_image(i, 18, 20 + 4 * (i > 1)).save(f"shots/{i}.png")
    assert same("--input=shots", "--output=out", "--frames").code == 0
    assert Image.open("out/3.png").size == (24, 18)


def test_other_data_than_pictures_is_no_video(tmp_path):
    with pytest.raises(UserError, match="8-bit pictures"):
        clips.check_eight_bits("x.mp4", PICTURES._replace(dtype="uint16", picture=False))


def test_memory_is_that_of_a_batch():
    """Frames are read when they are asked for."""
    made = []

    def frames():
        for i in range(100):
            made.append(i)
            yield videos.Frame(np.zeros((4, 4, 3), np.uint8), Fraction(i), Fraction(1))

    batches = clips.in_batches(frames(), 4)
    assert len(next(batches)) == 4 and len(made) == 5


def test_a_clip_can_be_read_again(tmp_path):
    clip = open_clip(make_video(tmp_path / "clip.mp4"), PICTURES)
    first, second = list(clip.read()), list(clip.read())
    assert len(first) == len(second) == clip.count == 20 and not clip.problems
    assert all((a.array == b.array).all() and a.time == b.time for a, b in zip(first, second, strict=True))
    assert torch.is_inference_mode_enabled() is False
