"""Where errors end: one sentence on stderr and exit code 2 for what a user can mend; never a traceback."""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from edpct.errors import EdpctError

TRACEBACK_VARIABLE = "EDPCT_TRACEBACK"
FULL = (errno.ENOSPC, errno.EDQUOT)
FAILING = (errno.EIO, errno.EFBIG, errno.ENODEV, errno.ENXIO, errno.ESTALE)  # a stick pulled out, a server that is gone
WRONG_PATH = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG,
)  # fmt: skip


class GuardedGroup(TyperGroup):
    """A command group that turns whatever its commands raise into a message and an exit code.

    2: input, settings or surroundings are wrong, or Ctrl-C. 1: a bug of ours (set EDPCT_TRACEBACK=1 to see where).
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EdpctError as error:
            if os.environ.get("LOCAL_RANK", "0") != "0":
                raise typer.Exit(2) from error  # processes of one training share their errors; one says it
            _stop(2, error.what, error.hint)
        except KeyboardInterrupt:
            _stop(2, "Interrupted; what was finished is kept.", "Run the same command again to go on.")
        except MemoryError:
            _stop(2, "This machine ran out of memory.", "Use a smaller batch, crop or input size.")
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has gone (edpct ... | head); typer ends quietly
            if error.errno in FULL:
                hint = "Free some space and run the same command again."
                _stop(2, "The disk is full; what was finished is kept.", hint)
            if error.errno in FAILING:
                hint = "See to the disk and run the same command again."
                _stop(2, f"A disk failed: {error.strerror}; what was finished is kept.", hint)
            if error.filename and error.errno in WRONG_PATH:
                _stop(2, f"{error.filename}: {error.strerror}.", "Check the path and its permissions.")
            _bug(error)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                raise  # wrong usage; typer says it and exits 2
            _bug(error)


def _bug(error: Exception) -> NoReturn:
    if os.environ.get(TRACEBACK_VARIABLE):
        raise error
    reason = (str(error).strip().splitlines() or [""])[0]
    _stop(
        1,
        f"Unexpected {type(error).__name__}: {reason}",
        f"This is a bug in edpct; please report it with what {TRACEBACK_VARIABLE}=1 shows.",
    )


def _stop(code: int, what: str, hint: str) -> NoReturn:
    typer.echo(f"edpct: {_on_one_line(what)}", err=True)
    if hint:
        typer.echo(f"       {_on_one_line(hint)}", err=True)
    raise typer.Exit(code)


def _on_one_line(text: str) -> str:
    """Names of files may hold line breaks and commands to the terminal; these are shown as escapes."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
