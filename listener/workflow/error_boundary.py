"""Error boundary of a job: translates any exception into RetryLater or Defect."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import Defect, RetryLater, SmearlinkError


@contextmanager
def translate_errors() -> Iterator[None]:
    """Let our own errors pass, and translate all others.

    A file system or memory that fails is tried again: RetryLater. Anything else is our own: Defect.
    Neither repeats the original message, which may quote a dataset.
    """
    try:
        yield
    except SmearlinkError:
        raise
    except OSError as err:
        raise RetryLater(
            f"The data folder cannot be used now ({type(err).__name__}): check disk and rights",
            code="storage_unavailable",
        ) from err
    except MemoryError as err:
        raise RetryLater("Out of memory: give the service more", code="out_of_memory") from err
    except Exception as err:
        raise Defect(f"{type(err).__name__} at {_where(err)}", code="defect") from err


def _where(err: BaseException) -> str:
    frame = traceback.extract_tb(err.__traceback__)[-1]
    return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
