"""Translated frames on their way to a clip's file: for each sort a function (frames, file, kind, clip, options, stop).

``frames`` is an iterator of at least one Frame, of 8 bits with 1 or 3 channels; ``file`` is open for writing; ``stop``
tells whether a signal has ended the frames early.
"""

from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import numpy as np
from PIL import Image

from readers.geometry import squeezed
from readers.videos import pyav, reason, sounds
from runtime.errors import UserError, first_line

TICK = Fraction(1, 240000)  # s: in which 24000/1001 and 30000/1001 frames a second, 24, 25, 50, 60 come out even
BT709 = dict(colorspace=1, color_primaries=1, color_trc=1, color_range=1)  # as FFmpeg counts them; the range limited
H264 = "libx264"


class Kind(NamedTuple):
    """A container: its writer, and PyAV's names of it, of the encoder that ``--codec auto`` means, and of the one for
    sound that it cannot hold as it is."""

    write: object
    name: str
    codec: str = ""
    sound: str = ""


def write_video(frames, file, kind, clip, options, stop):
    """Container ``kind`` by PyAV, with the sound of ``clip``. Raises UserError where an encoder is missing."""
    av = pyav()
    first, file = next(frames), ErrorKeepingFile(file)
    try:
        with av.open(file, "w", format=kind.name) as sink:
            stream = add_video(av, sink, first.array.shape, kind, clip, options)
            sound = Sound(sink, kind, clip)
            for frame in chain([first], frames):
                sound.write_until(frame.time)
                sink.mux(stream.encode(as_picture(av, frame, stream)))
            sink.mux(stream.encode(None))
            sound.write_until(frame.time + frame.duration if stop.received else None)
    except av.error.FFmpegError as error:
        if file.refused:
            raise file.refused from error
        remedy = "; try --codec auto" if options.codec != "auto" else "; name a folder as --output"
        raise UserError(f"{kind.name} with --codec {options.codec}: {reason(error)}{remedy}") from error


class ErrorKeepingFile:
    """A file that keeps the operating system's refusal to write, of which FFmpeg tells no more than that there was
    one."""

    def __init__(self, file):
        self.file, self.refused = file, None
        self.seek, self.tell = file.seek, file.tell

    def write(self, content):
        try:
            return self.file.write(content)
        except OSError as error:
            self.refused = error
            raise


def add_video(av, sink, shape, kind, clip, options):
    """A video stream in the container ``sink`` for frames of ``shape``, H×W×C."""
    name = kind.codec if options.codec == "auto" else options.codec
    try:
        stream = sink.add_stream(name, rate=clip.rate, options={"crf": str(options.crf)})
    except (ValueError, TypeError) as error:  # no such encoder, or not in such a container; or it is one for sound
        raise UserError(f"--codec {name} cannot be written to {kind.name} by this PyAV; try --codec auto") from error
    formats = [form.name for form in stream.codec_context.codec.video_formats or ()]
    context = stream.codec_context
    context.pix_fmt = "yuv420p" if "yuv420p" in formats or not formats else formats[0]
    even = 2 if context.format.chroma_width(2) == 1 else 1
    context.height, context.width = (side + -side % even for side in shape[:2])
    context.time_base, context.sample_aspect_ratio = TICK, clip.aspect
    context.flags |= av.codec.context.Flags.frame_duration  # else the last frame's is lost
    if not context.format.is_rgb:
        for field, value in BT709.items():
            setattr(context, field, value)
    return stream


def as_picture(av, frame, stream):
    """A Frame as ``stream`` encodes it. An odd side gets one more row or column, a copy of the last."""
    context = stream.codec_context
    more = [(0, context.height - frame.array.shape[0]), (0, context.width - frame.array.shape[1]), (0, 0)]
    colours = np.broadcast_to(frame.array, (*frame.array.shape[:2], 3))
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(colours, more, mode="edge")), format="rgb24")
    if not context.format.is_rgb:
        picture = picture.reformat(format=context.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
    picture.time_base, picture.pts = TICK, round(frame.time / TICK)
    picture.duration = round(frame.duration / TICK)
    return picture


LAYOUTS = (6, "5.1"), (2, "stereo"), (1, "mono")  # for so many channels or more, that every encoder knows
REFUSED = {"mov": {"flac", "opus"}}  # by FFmpeg, though it counts them among what the container can hold


class Sound:
    """The sound of ``clip``, or none, on its way to the container ``sink``: as it is where that can hold it, encoded
    again where not, without what is damaged."""

    def __init__(self, sink, kind, clip):
        self.sink, self.clip, self.damaged = sink, clip, 0
        self.packets = sounds(clip.sound) if clip.sound else iter([((), 0)])
        streams, self.start = next(self.packets)
        self.ways = {stream.index: self._way(stream, kind) for stream in streams if stream.codec_context}
        self.next = self._following()

    def _way(self, stream, kind):
        """(the stream in ``sink``, whether it is encoded again)."""
        context = stream.codec_context
        named = "channels" not in context.layout.name  # "2 channels" says of neither where it is
        if named and context.codec.canonical_name in self.sink.supported_codecs - REFUSED.get(kind.name, set()):
            return self.sink.add_stream_from_template(stream), False
        rates = pyav().Codec(kind.sound, "w").audio_rates or [context.sample_rate]
        nearest = min(rates, key=lambda rate: (abs(rate - context.sample_rate), -rate))
        layout = next(name for least, name in LAYOUTS if context.layout.nb_channels >= least)
        return self.sink.add_stream(kind.sound, rate=nearest, layout=layout), True

    def _following(self):
        return next((packet for packet in self.packets if packet.stream.index in self.ways), None)

    def write_until(self, time):
        """Write what sounds before ``time`` in seconds; without it all that is left."""
        while self.next and (time is None or self.next.pts * self.next.time_base - self.start < time):
            self._write(self.next)
            self.next = self._following()
        if time is None:
            for stream, again in self.ways.values():
                self.sink.mux(stream.encode(None) if again else [])
            if self.damaged:
                self.clip.problems.append(f"{self.damaged} packets of the sound of {self.clip.sound} are damaged")

    def _write(self, packet):
        stream, again = self.ways[packet.stream.index]
        earlier = round(self.start / packet.time_base)
        if not again:
            dts = packet.pts if packet.dts is None else packet.dts
            packet.pts, packet.dts = packet.pts - earlier, dts - earlier
            packet.stream = stream
            self.sink.mux(packet)
            return
        try:
            decoded = packet.decode()
        except pyav().error.FFmpegError:
            self.damaged += 1
            return
        for samples in decoded:
            samples.pts = None if samples.pts is None else samples.pts - earlier
            self.sink.mux(stream.encode(samples))


def in_ticks(frames, tick, least):
    """How long each frame is shown, in whole ticks of ``tick`` seconds, at least ``least``: what rounding takes from a
    frame the next ones get back."""
    counts, now = [], round(frames[0].time / tick)
    for frame in frames:
        counts.append(max(least, round((frame.time + frame.duration) / tick) - now))
        now += counts[-1]
    return counts


def write_animation(frames, file, kind, clip, options, stop):
    """An animated picture by Pillow, for which all frames are in memory at the end."""
    frames = list(frames)
    first, *rest = [Image.fromarray(squeezed(frame.array)) for frame in frames]
    tick, least = (Fraction(1, 100), 2) if kind.name == "GIF" else (Fraction(1, 1000), 1)  # browsers slow down 10 ms
    durations = [int(1000 * tick * count) for count in in_ticks(frames, tick, least)]
    shown = {} if clip.loops == 1 and kind.name == "GIF" else {"loop": clip.loops}  # a GIF says it only of more
    try:
        first.save(file, kind.name, save_all=True, append_images=rest, duration=durations, quality=90, **shown)
    except OSError:  # the disk's
        raise
    except Exception as error:  # what the format cannot say, as long stills; Pillow raises what it likes
        raise UserError(f"a {kind.name} cannot hold this clip ({first_line(error, '')}); write an .mp4") from error


MP4 = Kind(write_video, "mp4", H264, "aac")
KINDS = {
    ".mp4": MP4,
    ".m4v": MP4,
    ".mov": MP4._replace(name="mov"),
    ".mkv": MP4._replace(name="matroska"),
    ".webm": Kind(write_video, "webm", "libvpx-vp9", "libopus"),
    ".gif": Kind(write_animation, "GIF"),
    ".webp": Kind(write_animation, "WEBP"),
    ".png": Kind(write_animation, "PNG"),
}
