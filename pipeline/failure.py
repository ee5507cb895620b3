"""What a crash leaves: `internal/error.txt`, with the traceback and the command that goes on."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from disk import write_whole
from errors import InputError
from store.run_dir import RunDir
from tracking import ranks
from tracking.environment import environment, format_environment


@contextmanager
def working_in(folder: RunDir, goes_on_with: str) -> Iterator[None]:
    """However it ends, the folder's lock is let go, and a folder that stayed empty is removed.

    An error of this program, or of the machine, is written to `folder.error` and raised again. A user's mistake is not; one
    that ends well removes what an earlier try left.
    """
    try:
        try:
            yield
        finally:
            folder.close()
            folder.remove_if_empty()
    except InputError:
        raise
    except Exception:
        if ranks.rank() == 0 and folder.internal.is_dir():
            told = [f"{datetime.now():%Y-%m-%d %H:%M:%S}, {format_environment(environment())}"]
            told += [f"The same command goes on where this stopped:\n    {goes_on_with}"] if goes_on_with else []
            write_whole(folder.error, "\n".join([*told, "", traceback.format_exc()]))
        raise
    else:
        folder.error.unlink(missing_ok=True)
