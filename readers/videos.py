"""Videos, by PyAV: every container and codec that FFmpeg's libraries read.

A stranger's file decides which of their parsers run. They see its bytes and nothing else: a playlist may name other
files and addresses, but none is opened (``SHUT``), and frames larger than the limit are not decoded.
"""

import contextlib
import math
from fractions import Fraction

import numpy as np
from PIL import Image

from readers.files import Nameless, as_place, opened
from readers.moving import BadClip, Clip, Frame, check_frame
from readers.pictures import as_seen
from runtime.libraries import library

SHUT = {"protocol_whitelist": "none"}  # what stands in a file opens nothing
WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # decoders beside FFmpeg's own, which leave transparency out
UNSAID, HIGH = 2, 720  # a colour space that a file does not tell is BT.709 from so many lines on, below BT.601


def pyav():
    """The library, which is quiet unless told otherwise. (Any level of its log takes the interpreter's lock from the
    decoder's threads, and deadlocks with one that is being closed.)"""
    return library("av", "a video", "requirements-video.txt")


def refuse(address, flags, options):
    raise PermissionError(f"{address} is not to be opened")


@contextlib.contextmanager
def container(path, limit=1.0):
    """PyAV's container of a video file. ``limit``: GiB that a frame may take. Raises BadClip."""
    av = pyav()
    pixels = {"max_pixels": str(int(min(limit * 2**30 / 4, 2**31 - 1)))}
    with opened(as_place(path)) as file:
        try:
            found = av.open(Nameless(file), options=SHUT | pixels, io_open=refuse, metadata_errors="replace")
        except av.error.FFmpegError as error:
            raise BadClip(path, reason(error)) from error
        with found:
            for stream in found.streams.video:
                if stream.codec_context is not None:  # PyAV has its codec
                    stream.codec_context.options = pixels
                    stream.thread_type = "AUTO"
            yield found


def reason(error):
    """What FFmpeg says, without its numbers."""
    return (error.strerror or str(error)).splitlines()[0]


def clip(path, domain):
    with container(path, domain.limit) as source:
        if not source.streams.video:
            raise BadClip(path, "it has no video stream")
        video = source.streams.video[0]
        if video.codec_context is None:
            raise BadClip(path, "this PyAV does not have its codec")
        check_frame(path, video.width, video.height, domain.limit)
        rate = video.average_rate or video.guessed_rate or Fraction(25)
        seconds = video.duration * video.time_base if video.duration else Fraction(source.duration or 0, 10**6)
        found = Clip(rate, video.frames or round(seconds * rate) or None, None)
        found.sound = path if source.streams.audio else None
        first = next(decoded(source, video, []), None)
        if first is None:
            raise BadClip(path, "it holds no frames")
        aspect = video.sample_aspect_ratio or Fraction(1)
        found.aspect = 1 / aspect if first.rotation % 180 else aspect

    def read():
        with container(path, domain.limit) as source:
            video = source.streams.video[0]
            count, damage, time, last, begin = 0, [], Fraction(0), Fraction(-1), start(source)
            opening, regular = Fraction(0), 0  # when pictures begin, maybe after the sound; frames in the usual time
            for picture in decoded(source, video, damage):
                said = picture.duration * picture.time_base if picture.duration else 1 / rate
                if picture.pts is not None:
                    told = picture.pts * picture.time_base
                    if told - begin <= last:  # another recording begins
                        begin = told - time
                    time = told - begin
                yield Frame(as_array(picture, first.width, first.height, domain.channels), time, said)
                regular += abs(time - last - 1 / rate) < 0.1 / rate
                opening = opening if count else time
                last, time, count = time, time + said, count + 1
            varies = count and 2 * regular <= count
            usual = count / (time - opening) if varies else rate  # frames a second
            found.problems += shortfall(path, count, video.frames, round((seconds - opening) * usual), damage)

    found.read = read
    return found


def shortfall(path, count, exactly, about, damage):
    """What there is to say after ``count`` frames of a file that promised so many: a list of one sentence, or none."""
    if damage or count < exactly:
        promised = f" of {exactly}" if exactly else ""
        return [f"{path} is damaged or cut short: {count}{promised} frames could be read"]
    if not exactly and about and count < about - max(2, about / 50):
        maybe = "cut short or damaged, or its rate varies, or its pictures end before its sound"
        return [f"{path} is {maybe}: it holds {count} frames, and its length says {about}"]
    return []


def start(source):
    """The time of the earliest picture or sound."""
    return Fraction(source.start_time or 0, 10**6)


def decoded(source, video, damage):
    """The frames of a stream as PyAV has them. What cannot be read is passed over, and said in the list ``damage``."""
    decoder = decoder_of(video)
    for packet in undamaged(source.demux(video), damage):
        if packet is not None and packet.is_corrupt:
            damage.append("a damaged packet")
        try:
            pictures = decoder.decode(packet)
        except pyav().error.FFmpegError as error:
            damage.append(reason(error))
            continue
        for picture in pictures:
            if picture.is_corrupt:
                damage.append("a damaged picture")
            yield picture


def decoder_of(video):
    """What decodes a stream: where it says that it has transparency, what can see that, if this PyAV has it."""
    other = WITH_ALPHA.get(video.codec_context.name)
    if video.metadata.get("alpha_mode") != "1" or other not in pyav().codecs_available:
        return video
    decoder = pyav().CodecContext.create(other, "r")
    decoder.options = video.codec_context.options
    return decoder


def undamaged(packets, damage):
    """``packets`` up to where the file cannot be followed any more; None behind the last one gets out what the decoder
    has still in it."""
    try:
        yield from packets
    except pyav().error.FFmpegError as error:
        damage.append(reason(error))
        yield None


def turned(pixels, matrix):
    """H×W×C as a display matrix (ISO/IEC 14496-12) turns and mirrors it: that PyAV's ``rotation`` is an angle alone."""
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if a * d < b * c:
        pixels, a, b = pixels[:, ::-1], -a, -b
    return np.rot90(pixels, round(-math.degrees(math.atan2(b, a)) / 90))


def as_array(picture, width, height, channels):
    """A frame of PyAV as a person sees it, H×W×C of 8 bits."""
    alpha = any(part.is_alpha for part in picture.format.components)
    unsaid = picture.colorspace == UNSAID and not picture.format.is_rgb
    pixels = picture.to_ndarray(
        format="rgba" if alpha else "rgb24", width=width, height=height,
        src_colorspace=("ITU709" if height >= HIGH else "ITU601") if unsaid else None,
    )  # fmt: skip
    upright = Image.fromarray(np.ascontiguousarray(turned(pixels, picture.side_data.get("DISPLAYMATRIX"))))
    seen = np.asarray(as_seen(upright, channels))
    return seen.reshape(*seen.shape[:2], -1)


# ---------------------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------------------


def sounds(path):
    """The packets of all its sound as PyAV has them, by time, with their streams; the first item is those streams."""
    error_of_file = pyav().error.FFmpegError
    with container(path) as source:
        yield source.streams.audio, start(source)
        with contextlib.suppress(error_of_file):  # the frames tell of the damage
            for packet in source.demux(*source.streams.audio):
                if packet.pts is not None:
                    yield packet
