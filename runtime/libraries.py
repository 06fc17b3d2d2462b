"""Libraries that only some commands need."""

import importlib

from runtime.errors import UserError


def library(name, purpose, requirements):
    """The module ``name``; raises UserError where it is not installed.

    ``purpose`` says what needs it, and ``requirements`` is the file that names it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{purpose} needs {error.name}; install it: pip install -r {requirements}") from error
