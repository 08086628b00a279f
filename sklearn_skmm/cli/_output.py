"""Output files of the command line, written atomically."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

PROG = "sklearn-skmm"


class CommandError(Exception):
    """An error to report in one line; nothing was written."""


def _resolve_folder(path) -> str:
    """Resolve links in the folder, but not the file itself: a link is replaced, not its target."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder or "."), name)


def check_output_path(path, inputs, *, force) -> None:
    """Raise an error, before the selection starts, if the output could not be written.

    `inputs` says what each file that is read is; none of them is replaced.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise CommandError(f"{path} cannot be written: the folder {folder!r} does not exist.")
    if not os.access(folder, os.W_OK):
        raise CommandError(
            f"{path} cannot be written: no permission to write to the folder {folder!r}."
        )
    for name, what in inputs.items():
        if _resolve_folder(path) in (_resolve_folder(name), os.path.realpath(name)):
            raise CommandError(f"{path} is {what} itself, which is never replaced.")
    if os.path.lexists(path) and not os.path.islink(path) and not os.path.isfile(path):
        raise CommandError(f"{path} exists and is not a regular file.")
    if os.path.lexists(path) and not force:
        raise CommandError(f"{path} exists. Use --force to replace it.")


class StagedFiles:
    """Output files that keep temporary names until all of them are complete."""

    def __init__(self, force: bool):
        self._force = force
        self._files: list[tuple[str, str]] = []

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for name, _ in self._files:
            with suppress(FileNotFoundError):
                os.unlink(name)

    @contextmanager
    def open(self, path) -> Iterator[BinaryIO]:
        """Open a temporary file that `publish` renames to `path`."""
        name = os.path.join(os.path.dirname(path), f".{PROG}-{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._files.append((name, path))  # before creating it: Ctrl-C may follow at once
        try:
            descriptor = os.open(name, flags, 0o666)
        except FileExistsError:
            self._files.pop()  # it belongs to another process
            raise
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or path  # a write or flush does not set it
            raise

    def publish(self) -> None:
        """Rename the files; without force, raise an error if a name has been taken meanwhile."""
        for name, path in self._files:
            if self._force:
                os.replace(name, path)
                continue
            try:
                try:
                    os.link(name, path)  # fails if anything exists there, even a link
                except FileExistsError:
                    raise
                except OSError:  # without hard links, reserve the name and then replace the file
                    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                    try:
                        os.close(descriptor)
                        os.replace(name, path)
                    except BaseException:
                        os.unlink(path)  # the empty file that reserved the name
                        raise
            except FileExistsError:
                raise CommandError(f"{path} exists. Use --force to replace it.") from None
