"""Errors that say what is wrong, where, and what to do.

Every error that a user can cause is an :class:`InputError`: one line that names the
file or parameter, the problem and the remedy. The command line prints it without a
traceback; a notebook shows it as an ordinary exception.
"""

from __future__ import annotations

from typing import Self

from rbkit.text import visible


class RbkitError(Exception):
    r"""Anything that rbkit itself raises.

    What it quotes may come from a stranger's files, and every traceback ends in a terminal.

    Examples
    --------
    >>> str(RbkitError("\x1b[31mred"))
    'red'
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message))


class InputError(RbkitError, ValueError):
    """Bad input: *where* it is, *what* is wrong and the *remedy*, in one line.

    Parameters
    ----------
    where : str
        The file, column or parameter at fault.
    what : str
        What is wrong with it.
    remedy : str
        What to do about it.

    Examples
    --------
    >>> str(InputError("k", "500 domains asked of 120 examples", "choose k <= 120"))
    'k: 500 domains asked of 120 examples; choose k <= 120'
    """

    def __init__(self, where: str, what: str, remedy: str) -> None:
        self.where, self.what, self.remedy = where, what, remedy
        super().__init__(" ".join(f"{where}: {what}; {remedy}".split()))

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        # Exceptions are rebuilt from `args`, which is the one line: worker processes need three.
        return type(self), (self.where, self.what, self.remedy)


class AssetError(InputError):
    """A model or corpus that is not in the cache, or not what its checksum says."""


class RbkitWarning(UserWarning):
    """Something that went on, but that the user should know of; as safe to show as an error."""

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message))
