"""A crash-safe store for the finished blocks of a sketch. Standard library and NumPy only."""

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
# A manifest takes a few hundred bytes; one that is larger than this is not ours.
MAX_MANIFEST_BYTES = 2**20
# A temporary file that nobody has written to for this long belongs to a run that is dead.
TEMPORARY_MAX_AGE = 3600.0
TEMPORARY = re.compile(r"tmp-[0-9]+-[0-9a-f]{16}\.partial")
BLOCK = re.compile(r"block-([0-9]{8}|[1-9][0-9]{8,})-([0-9a-f]{32})-([0-9a-f]{32})\.npy")

# Said of caches only: nobody should be told to delete a directory of other files.
STALE_ADVICE = "Choose another directory, or delete that one."

Scalar = str | int | float | bool | None


def digest(*parts: Any) -> str:
    """Return 32 hexadecimal digits that tell these arrays and scalars from all others.

    Values, order, shapes and types count; memory layout and byte order of arrays do not.

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
            # The bytes of objects are addresses, those of long doubles have random padding.
            if array.dtype.kind not in "biufcmMSU" or array.dtype.char in "gG":
                raise TypeError(f"Arrays of dtype {array.dtype} have no canonical bytes.")
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
            raise TypeError(f"Cannot digest {type(part).__name__}.")
        # The length in front makes the concatenation of parts unambiguous.
        hasher.update(f"{kind} {len(data)}\n".encode())
        hasher.update(data)
    return hasher.hexdigest()


def _content_digest(data) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _key_value(key: dict[str, str], name: str) -> str:
    return repr(json.loads(key[name])) if name in key else "absent"


def _parse_manifest(data: bytes) -> dict[str, Scalar]:
    """Return the key of a manifest; ValueError says what is wrong with it."""
    try:
        manifest = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not valid JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError("it is not the manifest of a sketch cache")
    version, key = manifest.get("version"), manifest.get("key")
    if type(version) is not int or version != VERSION:
        shown = version if isinstance(version, int) else "missing"
        raise ValueError(f"its format version is {shown}, this release reads {VERSION}")
    if unknown := manifest.keys() - {"format", "version", "key"}:
        # Names of files, say: no manifest of ours leads anywhere.
        raise ValueError(f"it has {min(unknown)!r}, which no manifest of this version has")
    if not isinstance(key, dict) or any(isinstance(v, dict | list) for v in key.values()):
        raise ValueError("its key is not a flat dict")
    return key


class SketchCache:
    """Finished blocks of one sketch in one directory.

    A block is a file, whole or absent: a run that is killed at any moment is resumed from the
    blocks that it finished. Any number of processes may share the directory, without locks. Names
    of block files hold the digest of what the block was made from and that of the file itself, so
    that neither stale nor damaged values are returned. Blocks and manifest that are symbolic links
    are refused, never followed; the directory itself may be one.

    Parameters
    ----------
    directory : str or path-like
        It is created if missing. A directory of other files is refused.
    key : dict of str to str, int, float, bool or None
        What all blocks have in common: weights, embedding, seed, rows of a block and so on.

    Raises
    ------
    ValueError
        If the directory holds a cache with another key or a damaged manifest, or other files.
        It is left as it is.
    OSError
        If the directory cannot be read or written. One that is read-only can be read.

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
        # Absolute, for a run of hours may change its working directory.
        self.directory = Path(directory).absolute()
        for name, value in key.items():
            if not isinstance(name, str) or not isinstance(value, Scalar):
                raise TypeError(f"The key holds {name!r}: {value!r}, not str to scalar.")
        # The text is what is compared: it tells 1 from 1.0 and True, and equals itself with NaN.
        self._key = {name: json.dumps(value) for name, value in sorted(key.items())}
        self._blocks: dict[int, dict[str, str]] = {}  # index → file name → digest of the inputs
        self._damaged: dict[int, set[str]] = {}
        with self._name_directory_in_errors("open the cache"):
            self.directory.mkdir(parents=True, exist_ok=True)
            # Names before manifest: others' files appear in the opposite order.
            names = os.listdir(self.directory)
            if not self._has_manifest():
                # Blocks without manifest are strange, too: nobody knows what made them.
                foreign = sorted(name for name in names if not TEMPORARY.fullmatch(name))
                if foreign:
                    raise self._directory_error(
                        f"is not a sketch cache: it has no {MANIFEST} but other files, such as "
                        f"{foreign[0]!r}"
                    )
                manifest = {"format": FORMAT, "version": VERSION, "key": dict(key)}
                data = json.dumps(manifest, indent=1).encode()
                if len(data) > MAX_MANIFEST_BYTES:
                    raise ValueError(f"A key of {len(data)} bytes is too large.")
                self._write(MANIFEST, data, _link_unless_exists)
                self._has_manifest()  # another process may have been first, with another key
            self._list_blocks()
            for name in filter(TEMPORARY.fullmatch, names):
                with suppress(OSError):  # gone already, or read-only
                    if time.time() - os.lstat(self.directory / name).st_mtime > TEMPORARY_MAX_AGE:
                        os.unlink(self.directory / name)

    def get(self, index: int, input_digest: str) -> np.ndarray | None:
        """Return a block as it was put, or None if it is missing or damaged.

        `input_digest` is the `digest` of what the block is computed from; a block that was made
        from anything else raises ValueError. A damaged file is never used: it gives a UserWarning,
        and the next `put` of the block replaces it.
        """
        with self._name_directory_in_errors(f"read block {index}"):
            if operator.index(index) not in self._blocks:
                self._list_blocks()  # another process may have put it
            for name in self._block_files(index, self._block_input_digest(input_digest)):
                data = self._read(name)
                if data is None:
                    continue
                if name.endswith(f"-{_content_digest(data)}.npy"):
                    with suppress(ValueError, EOFError, SyntaxError, tokenize.TokenError):
                        _check_file_size(data)
                        # From the bytes that were verified: the file may be another by now.
                        block = np.load(io.BytesIO(data), mmap_mode=None, allow_pickle=False)
                        if _is_block(block):
                            return np.ascontiguousarray(block)
                self._damaged.setdefault(index, set()).add(name)
                warnings.warn(
                    f"cache_dir={str(self.directory)!r}: block file {name} is damaged and is not "
                    "used; the block has to be computed again.",
                    UserWarning,
                    stacklevel=2,
                )
        return None

    def put(self, index: int, input_digest: str, array: np.ndarray) -> None:
        """Store a finished block, 2-d and float32 or float64; it is on disk when this returns.

        ValueError if the cache has this block from other inputs, or is by now a cache with another
        key; OSError, with the number of its cause, if it cannot be written. Neither leaves a trace.
        """
        if operator.index(index) < 0 or not _is_block(array):
            raise ValueError("A block is a 2-d float32 or float64 array at an index from 0.")
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        data = buffer.getbuffer()
        inputs = self._block_input_digest(input_digest)
        name = f"block-{index:08d}-{inputs}-{_content_digest(data)}.npy"
        with self._name_directory_in_errors(f"write block {index}"):
            # The directory may have been deleted and made anew by another run since it was opened.
            if not self._has_manifest():
                raise FileNotFoundError(errno.ENOENT, f"{MANIFEST} is gone", MANIFEST)
            self._block_files(index, inputs)  # refuses those of other inputs
            self._write(name, data, os.replace)
            for damaged in self._damaged.pop(index, set()) - {name}:
                with suppress(OSError):
                    os.unlink(self.directory / damaged)
        self._blocks.setdefault(index, {})[name] = inputs

    def _block_input_digest(self, input_digest: str) -> str:
        # With the key, so that a block which strays into another cache is refused there.
        return digest(input_digest, *(text for item in self._key.items() for text in item))

    def _block_files(self, index: int, inputs: str) -> list[str]:
        """Return names of the block's files: more than one if computing it is not reproducible."""
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
        """Return False without manifest; raise ValueError if it is not that of this cache."""
        data = self._read(MANIFEST, MAX_MANIFEST_BYTES)
        if data is None:
            return False
        try:
            theirs = {name: json.dumps(value) for name, value in _parse_manifest(data).items()}
        except ValueError as error:
            raise self._directory_error(f"has a {MANIFEST} that cannot be used: {error}") from error
        differences = [
            f"{name} is {_key_value(theirs, name)} there and {_key_value(self._key, name)} now"
            for name in sorted(theirs.keys() | self._key.keys())
            if theirs.get(name) != self._key.get(name)
        ]
        if differences:
            raise self._directory_error(f"is stale: {'; '.join(differences)}", STALE_ADVICE)
        return True

    def _read(self, name: str, limit: int | None = None) -> bytes | None:
        path = self.directory / name
        # Should a link or a pipe take the place of the file after the check, do not follow or hang.
        safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                raise self._directory_error(f"has {name}, which is not a regular file")
            if limit is not None and status.st_size > limit:
                raise self._directory_error(f"has a {name} of {status.st_size} bytes")
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
                # Before it gets its name, or a power cut could leave the name without the data.
                os.fsync(file.fileno())
            publish(temporary, self.directory / name)
        finally:
            with suppress(OSError):
                os.unlink(temporary)
        # Not every system can do this for a directory; without, a power cut may cost a block.
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
    """Raise ValueError unless the file has as many values as it says."""
    # NumPy asks for the memory before it looks for the values.
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not a version that blocks have")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError("too short or too long")


def _link_unless_exists(temporary: Path, path: Path) -> None:
    # A link fails where the manifest exists: of two processes the first wins, neither overwrites.
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except (OSError, AttributeError):  # a file system or platform without links
        os.replace(temporary, path)
