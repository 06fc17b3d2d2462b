"""What a user sees when something is wrong that they can put right: one line, exit code 2, no traceback."""

import sys
from pathlib import Path


class UserError(Exception):
    """Bad input or a bad environment. The message is one line that says what is wrong and what to do."""


def exit_cleanly(main):
    """Run ``main()``; end a UserError, or the operating system's refusal of a file, with one line and exit code 2."""
    try:
        main()
    except UserError as error:
        message = str(error)
    except OSError as error:
        if error.filename is None:  # not about a file: a defect of ours, to be seen whole
            raise
        message = f"{error.filename}: {error.strerror}"
    else:
        return
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(2)
