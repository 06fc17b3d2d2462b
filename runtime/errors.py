"""What a user sees when something is wrong that they can put right: one line, exit code 2, no traceback."""

import contextlib
import difflib
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

from runtime.files import LEFTOVER, write
from runtime.streams import silence_unread

NOTHING_LEFT = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class UserError(Exception):
    """Bad input or a bad environment. The message is one line that says what is wrong and what to do."""


def warn(message):
    """One line on the screen about something that does not stop the run."""
    say("warning", message)


def tell(*messages):
    """Lines on the screen, whose names may come from anywhere."""
    for message in messages:
        print(printable(message))


def say(kind, message):
    print(f"{Path(sys.argv[0]).name}: {kind}: {printable(message)}", file=sys.stderr)


def printable(text):
    """``text`` on one line that any terminal can show: file names may hold line breaks and bytes of no encoding."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def counted(number, thing):
    """``number`` of a ``thing``: "1 channel", "3 channels"."""
    return f"{number} {thing}{'s' if number != 1 else ''}"


def dimensions(shape):
    """A tensor's ``shape``: "16×3×7×7"."""
    return "×".join(map(str, shape)) or "one number"


def did_you_mean(name, known, share=0.8):
    """A question to end a message with, where ``name`` has so large a ``share`` of its letters in common with one of
    ``known``; else ""."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=share)
    return f"; did you mean {near[0]}?" if near else ""


def first_line(text, instead):
    """The first line of ``text``, whatever that is, or the second where that one only heads a list; ``instead`` where
    there is none."""
    lines = str(text).splitlines()
    heads_a_list = len(lines) > 1 and lines[0].endswith(":")
    return next((line.strip() for line in lines[heads_a_list:]), instead)


def describe(error):
    """What went wrong, in a line; an OSError about a file in the words of the operating system."""
    if not isinstance(error, OSError):
        return first_line(error, type(error).__name__)
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename:
        return f"{error.filename}: {error.strerror}, and a folder is needed there; move it, or name another folder"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def not_permitted(error):
    """What to do where this user may not read or write; None for other errors. A temporary file is its folder's."""
    if not isinstance(error, PermissionError) or not error.filename:
        return None
    place = Path(os.fsdecode(error.filename))
    place = place.parent if LEFTOVER.fullmatch(place.name) else place
    return f"{place}: {error.strerror}; take another, or let this user read and write there"


def in_a_thread(given):
    """``threading.excepthook``: what stopped a thread, as TensorBoard's that write, in one line."""
    warn(f"{getattr(given.thread, 'name', 'a thread')}: {describe(given.exc_value)}")


def exit_cleanly(main):
    """Run ``main()``; end a UserError, or the operating system's refusal of a file, with one line and exit code 2."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # for file names in no encoding; and a log shows each line at once
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    warnings.showwarning = lambda message, category, *where: warn(first_line(message, category))
    logging.lastResort = Lines(logging.WARNING)
    sys.excepthook = uncaught
    threading.excepthook = in_a_thread
    try:
        try:
            interruptible(main)
        finally:
            sys.stdout.flush()
    except UserError as error:
        stop(str(error), 2)
    except BrokenPipeError:  # whoever read the output has seen enough
        silence_unread()
        sys.exit(141)  # what a shell makes of SIGPIPE
    except OSError as error:
        blocked = hasattr(error, "characters_written")  # a terminal that takes no more for the moment
        if error.filename is None and error.errno in NOTHING_LEFT and not blocked:
            said = f"the system has no more memory, files or processes ({error.strerror})"
            stop(f"{said}; try a smaller --n_cpu, where there is one", 2)
        if error.filename is None and error.errno not in DISK_REFUSES:  # a defect of ours, to be seen whole
            raise
        stop(not_permitted(error) or describe(error), 2)
    except KeyboardInterrupt:
        stop("interrupted", 130)


def interruptible(main):
    """Run ``main()``. Ctrl-C comes out of it as KeyboardInterrupt, also where a library made another error of it."""
    came, usual = [], signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def note(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    if not usual or threading.current_thread() is not threading.main_thread():
        return main()
    signal.signal(signal.SIGINT, note)
    try:
        main()
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Lines(logging.Handler):
    """What libraries log, each as a line of ours."""

    def emit(self, record):
        warn(first_line(record.getMessage(), record.name))


def uncaught(kind, error, trace):
    """An interruption while modules are imported, which takes seconds, is none to be seen whole."""
    if issubclass(kind, KeyboardInterrupt):
        say("error", "interrupted")
    else:
        sys.__excepthook__(kind, error, trace)


def stop(message, code):
    say("error", message)
    tell_torchrun(message)
    sys.exit(code)


def tell_torchrun(message):
    """Hand the line to torchrun, if that has started this process: it ends with a long report, and puts this last."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        said = {"message": printable(message), "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            write(path, json.dumps({"message": said}).encode())
