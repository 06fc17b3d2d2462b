"""Translate in a browser with the models that were trained here: ``python app.py``; ``--help`` lists the flags.

Listens on this machine alone unless told otherwise, takes files up to a size, and shows no file but its own answers.
"""

import os
import sys

from options import parse_app
from runtime.errors import exit_cleanly

if __name__ == "__main__":
    exit_cleanly(parse_app)  # answers --help and bad flags, before torch is imported

from inference.app import STYLE, Models, build
from inference.visits import guards
from runtime.device import flush_denormals, pick_device
from runtime.errors import UserError


def main():
    options = parse_app()
    flush_denormals()
    models = Models(options.checkpoint_dir, pick_device(options.device))
    if not models.runs():
        raise UserError(f"there is no checkpoint under {options.checkpoint_dir}; train first, or name --checkpoint_dir")
    page = build(models)
    try:
        page.launch(
            app_kwargs={"middleware": guards(options.host, options.share, options.max_upload)},
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            max_file_size=f"{options.max_upload}mb",
            css=STYLE,
            ssr_mode=False,  # no node process
            footer_links=[],
        )
    except OSError as error:  # in whose words other flags are to be changed
        where = f"{options.host}:{options.port}"
        raise UserError(f"cannot listen at {where}; is it in use? choose another --port or --host") from error
    # Ctrl-C has closed the server. A thread may still translate, and Python's own end would abort the process then.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    exit_cleanly(main)
