"""Crash-safe storage of the finished blocks of a sketch. Standard library and NumPy only."""

import errno
import hashlib
import io
import json
import math
import operator
import os
import re
import secrets
import stat
import time
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "sklearn_skmm sketch cache"
VERSION = 1
MANIFEST = "manifest.json"
# A manifest takes a few hundred bytes. A larger file was not written by this module.
MAX_MANIFEST_BYTES = 2**20
# Seconds without a write after which a temporary file is taken to belong to a dead process.
TEMPORARY_MAX_AGE = 3600.0
TEMPORARY = re.compile(r"tmp-[0-9]+-[0-9a-f]{16}\.partial")
BLOCK = re.compile(r"block-([0-9]{8}|[1-9][0-9]{8,})-([0-9a-f]{32})-([0-9a-f]{32})\.npy")

# Only for directories that hold a cache: never advise to delete a directory of other files.
STALE_ADVICE = "Choose another directory, or delete that one."

Scalar = str | int | float | bool | None


def digest(*parts: Any) -> str:
    """Return a digest of arrays and scalars, as 32 hexadecimal digits.

    It depends on values, order, shapes and types, but not on the memory layout or byte order of
    arrays.

    Parameters
    ----------
    *parts : ndarray, NumPy scalar, str, bytes, bool, int, float or None
        Arrays of numbers, dates, strings or bytes. A NumPy scalar is an array of shape ().

    Returns
    -------
    digest : str
        BLAKE2b of 16 bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm.sketch._cache import digest
    >>> digest(np.eye(2), "label") == digest(np.asfortranarray(np.eye(2)), "label")
    True
    >>> digest(np.eye(2)) == digest(np.eye(2).ravel())
    False
    """
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        data: Any
        if isinstance(part, np.ndarray | np.generic):
            array = np.asarray(part)
            # The bytes of objects are addresses, and long doubles have undefined padding.
            if array.dtype.kind not in "biufcmMSU" or array.dtype.char in "gG":
                raise TypeError(
                    f"Cannot digest an array of dtype {array.dtype}: it has no canonical bytes."
                )
            array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            kind = f"array {array.dtype.str} {array.shape}"
            data = array.reshape(-1).view(np.uint8)
        elif isinstance(part, bytes | bytearray):
            kind, data = "bytes", part
        elif isinstance(part, str):
            kind, data = "str", part.encode("utf-8", "surrogatepass")
        elif part is None or type(part) in (bool, int, float):
            kind, data = type(part).__name__, repr(part).encode()
        else:
            raise TypeError(f"Cannot digest an object of type {type(part).__name__}.")
        # The length prefix makes the concatenation of parts unambiguous.
        hasher.update(f"{kind} {len(data)}\n".encode())
        hasher.update(data)
    return hasher.hexdigest()


def _content_digest(data) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _key_value(key: dict[str, str], name: str) -> str:
    return repr(json.loads(key[name])) if name in key else "absent"


def _parse_manifest(data: bytes) -> dict[str, Scalar]:
    """Return the key of a manifest; raise ValueError with the reason if it is invalid."""
    try:
        manifest = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not valid JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError("it is not the manifest of a sketch cache")
    version, key = manifest.get("version"), manifest.get("key")
    if type(version) is not int or version != VERSION:
        shown = version if isinstance(version, int) else "missing"
        raise ValueError(f"its format version is {shown}, but this release reads {VERSION}")
    if unknown := manifest.keys() - {"format", "version", "key"}:
        # Such as names of files: a manifest never refers to other files.
        raise ValueError(f"it has {min(unknown)!r}, which no manifest of this version has")
    if not isinstance(key, dict) or any(isinstance(v, dict | list) for v in key.values()):
        raise ValueError("its key is not a flat dict of scalars")
    return key


class SketchCache:
    """Store the finished blocks of one sketch in a directory.

    Each block is a file that is written atomically, so a run that is killed at any moment can
    resume from the blocks it finished. Any number of processes may share the directory, without
    locks. The name of a block file contains the digest of its inputs and the digest of its content,
    so stale or damaged values are never returned. A block or manifest that is a symbolic link is
    refused, not followed; the directory itself may be a symbolic link.

    Parameters
    ----------
    directory : str or path-like
        Directory of the cache, created if missing. A directory with other files is refused.
    key : dict of str to str, int, float, bool or None
        Settings that all blocks share: weights, projection, seed, rows per block and so on.

    Raises
    ------
    ValueError
        If the directory holds a cache with another key, a damaged manifest or other files. The
        directory is left unchanged.
    OSError
        If the directory cannot be read or written. A read-only cache can still be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_skmm.sketch._cache import SketchCache, digest
    >>> X = np.eye(4)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     cache = SketchCache(directory, {"m": 2, "seed": 0})
    ...     print(cache.get(0, digest(X)))
    ...     cache.put(0, digest(X), X[:, :2])
    ...     print(SketchCache(directory, {"m": 2, "seed": 0}).get(0, digest(X)).shape)
    None
    (4, 2)
    """

    def __init__(self, directory: str | os.PathLike[str], key: Mapping[str, Scalar]):
        # Absolute, because the working directory may change during a long run.
        self.directory = Path(directory).absolute()
        for name, value in key.items():
            if not isinstance(name, str) or not isinstance(value, Scalar):
                raise TypeError(
                    "The 'key' parameter of SketchCache must map str to str, int, float, bool or "
                    f"None. Got {name!r}: {value!r} instead."
                )
        # Compare values as JSON text: 1, 1.0 and True differ, and NaN equals itself.
        self._key = {name: json.dumps(value) for name, value in sorted(key.items())}
        self._blocks: dict[int, dict[str, str]] = {}  # index → file name → digest of the inputs
        self._damaged: dict[int, set[str]] = {}
        with self._name_directory_in_errors("open the cache"):
            self.directory.mkdir(parents=True, exist_ok=True)
            # List names before reading the manifest: other processes write the manifest first.
            names = os.listdir(self.directory)
            if not self._has_manifest():
                # Blocks without a manifest count as other files: their settings are unknown.
                foreign = sorted(name for name in names if not TEMPORARY.fullmatch(name))
                if foreign:
                    raise self._directory_error(
                        f"is not a sketch cache: it has no {MANIFEST}, but other files such as "
                        f"{foreign[0]!r}"
                    )
                manifest = {"format": FORMAT, "version": VERSION, "key": dict(key)}
                data = json.dumps(manifest, indent=1).encode()
                if len(data) > MAX_MANIFEST_BYTES:
                    raise ValueError(
                        "The 'key' parameter of SketchCache is too large: its manifest takes "
                        f"{len(data)} bytes."
                    )
                self._write(MANIFEST, data, _link_unless_exists)
                self._has_manifest()  # another process may have written one first, with another key
            self._list_blocks()
            for name in filter(TEMPORARY.fullmatch, names):
                with suppress(OSError):  # already deleted, or read-only
                    if time.time() - os.lstat(self.directory / name).st_mtime > TEMPORARY_MAX_AGE:
                        os.unlink(self.directory / name)

    def get(self, index: int, input_digest: str) -> np.ndarray | None:
        """Return a stored block, or None if it is missing or damaged.

        `input_digest` is the `digest` of the block's inputs. If the stored block was made from
        other inputs, ValueError is raised. A damaged file is never used: a UserWarning is issued,
        and the next `put` of the block replaces the file.
        """
        with self._name_directory_in_errors(f"read block {index}"):
            if operator.index(index) not in self._blocks:
                self._list_blocks()  # another process may have stored it
            for name in self._block_files(index, self._block_input_digest(input_digest)):
                data = self._read(name)
                if data is None:
                    continue
                if name.endswith(f"-{_content_digest(data)}.npy"):
                    with suppress(ValueError, EOFError, SyntaxError, tokenize.TokenError):
                        _check_file_size(data)
                        # Load the verified bytes: the file may have been replaced since.
                        block = np.load(io.BytesIO(data), mmap_mode=None, allow_pickle=False)
                        if _is_block(block):
                            return np.ascontiguousarray(block)
                self._damaged.setdefault(index, set()).add(name)
                warnings.warn(
                    f"cache_dir={str(self.directory)!r}: block file {name} is damaged and is not "
                    "used. The block will be computed again.",
                    UserWarning,
                    stacklevel=2,
                )
        return None

    def put(self, index: int, input_digest: str, array: np.ndarray) -> None:
        """Store a finished 2-d float32 or float64 block, which is on disk when this returns.

        Raises ValueError if the cache has this block from other inputs, or if the directory has
        become a cache with another key. Raises OSError, with the errno of the cause, if the block
        cannot be written. In both cases no file is left behind.
        """
        if operator.index(index) < 0 or not _is_block(array):
            raise ValueError(
                "A block must be a 2-d float32 or float64 array with a nonnegative index."
            )
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        data = buffer.getbuffer()
        inputs = self._block_input_digest(input_digest)
        name = f"block-{index:08d}-{inputs}-{_content_digest(data)}.npy"
        with self._name_directory_in_errors(f"write block {index}"):
            # Another run may have deleted and recreated the directory since it was opened.
            if not self._has_manifest():
                raise FileNotFoundError(errno.ENOENT, f"{MANIFEST} is missing", MANIFEST)
            self._block_files(index, inputs)  # raises if the block was made from other inputs
            self._write(name, data, os.replace)
            for damaged in self._damaged.pop(index, set()) - {name}:
                with suppress(OSError):
                    os.unlink(self.directory / damaged)
        self._blocks.setdefault(index, {})[name] = inputs

    def _block_input_digest(self, input_digest: str) -> str:
        # Include the key, so that a block file copied into another cache is refused there.
        return digest(input_digest, *(text for item in self._key.items() for text in item))

    def _block_files(self, index: int, inputs: str) -> list[str]:
        """Return the names of a block's files, several if its values are not reproducible."""
        names = self._blocks.get(index, {})
        if any(other != inputs for other in names.values()):
            raise self._directory_error(
                f"is stale: its block {index} was made from other data", STALE_ADVICE
            )
        return sorted(names)

    def _list_blocks(self) -> None:
        blocks: dict[int, dict[str, str]] = {}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if match := BLOCK.fullmatch(entry.name):
                    if not entry.is_file(follow_symlinks=False):
                        raise self._directory_error(
                            f"has {entry.name}, which is not a regular file"
                        )
                    blocks.setdefault(int(match[1]), {})[entry.name] = match[2]
        self._blocks = blocks

    def _has_manifest(self) -> bool:
        """Return whether there is a manifest; raise ValueError if it is not that of this cache."""
        data = self._read(MANIFEST, MAX_MANIFEST_BYTES)
        if data is None:
            return False
        try:
            theirs = {name: json.dumps(value) for name, value in _parse_manifest(data).items()}
        except ValueError as error:
            raise self._directory_error(f"has a {MANIFEST} that cannot be used: {error}") from error
        differences = [
            f"{name} is {_key_value(theirs, name)} in the cache and "
            f"{_key_value(self._key, name)} in this run"
            for name in sorted(theirs.keys() | self._key.keys())
            if theirs.get(name) != self._key.get(name)
        ]
        if differences:
            raise self._directory_error(f"is stale: {'; '.join(differences)}", STALE_ADVICE)
        return True

    def _read(self, name: str, limit: int | None = None) -> bytes | None:
        path = self.directory / name
        # If a link or pipe replaces the file after the check, do not follow it or wait for it.
        safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                raise self._directory_error(f"has {name}, which is not a regular file")
            if limit is not None and status.st_size > limit:
                raise self._directory_error(
                    f"has a {name} of {status.st_size} bytes, which is too large"
                )
            with open(path, "rb", opener=lambda path, flags: os.open(path, flags | safe)) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: Any, publish: Callable[[Path, Path], None]) -> None:
        temporary = self.directory / f"tmp-{os.getpid()}-{secrets.token_hex(8)}.partial"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                # Sync before renaming, or a power cut could leave the name without the data.
                os.fsync(file.fileno())
            publish(temporary, self.directory / name)
        finally:
            with suppress(OSError):
                os.unlink(temporary)
        # Not every system can sync a directory. Without it, a power cut may lose a block.
        with suppress(OSError):
            descriptor = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _directory_error(
        self, reason: str, advice: str = "Choose another directory."
    ) -> ValueError:
        return ValueError(
            f"cache_dir={str(self.directory)!r} {reason}. Nothing in it was changed or reused. "
            f"{advice}"
        )

    @contextmanager
    def _name_directory_in_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"cache_dir={str(self.directory)!r}: could not {action}: {error.strerror or error}",
            ) from error


def _is_block(array: Any) -> bool:
    return (
        isinstance(array, np.ndarray)
        and array.ndim == 2
        and array.dtype in (np.dtype(np.float32), np.dtype(np.float64))
    )


def _check_file_size(data: bytes) -> None:
    """Raise ValueError unless the file has as many values as its header states."""
    # NumPy allocates memory according to the header before it reads the values.
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not the npy version of a block")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError("too short or too long")


def _link_unless_exists(temporary: Path, path: Path) -> None:
    # Linking fails if the manifest exists, so of two processes the first wins and none overwrites.
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except (OSError, AttributeError):  # the file system or platform has no links
        os.replace(temporary, path)
