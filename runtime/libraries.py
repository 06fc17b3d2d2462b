"""Libraries that only some commands need."""

import importlib

from runtime.errors import UserError, first_line


def library(name, purpose, requirements):
    """The module ``name``; raises UserError where it is not installed, or cannot be loaded.

    ``purpose`` says what needs it, and ``requirements`` is the file that names it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{purpose} needs {error.name}; install it: pip install -r {requirements}") from error
    except ImportError as error:  # a library that it is made of is missing, or of another version
        said = first_line(error, type(error).__name__)
        raise UserError(f"{purpose} needs {name}, which cannot be loaded: {said}; install it anew") from error
