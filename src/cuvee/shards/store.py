"""Places on this machine's disk, a shared one or object storage, through fsspec.

A path, or a URL such as `s3://bucket/folder/`, in; listings, files to read, and files that
appear complete or not at all, out. What a store refuses is asked again a few times. Credentials
are found by the store's own package (environment, its configuration), never in a URL. Not here:
what is in a file.
"""

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cuvee.errors import DataError, RecipeError

PAUSES = (0.5, 2.0)
"""Seconds before a store is asked again; after the last its answer counts."""
MARKS = (
    "ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "updated",
    "modified", "created",
)  # fmt: skip
"""Where stores say which content a file has, the surest first."""
DEEPEST = 64
"""Folders in folders that are looked through."""
LASTING = (FileNotFoundError, PermissionError)
"""Failures that asking again does not mend."""
PATTERN_SIGNS = "*?["
UNLISTED = ("http", "https")
"""Schemes of fsspec that can neither be listed nor written to."""

Result = TypeVar("Result")


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it (of a disk: absolute).

    Raises RecipeError for a URL with a password, one that fsspec chains (`::`), a scheme that
    is not known, cannot be listed, or whose package is not installed.
    """
    from fsspec.core import url_to_fs

    scheme = scheme_of(url)
    if "::" in url:
        raise RecipeError("a chained URL (`::`) is not supported: name the store itself")
    if scheme and ":" in urlsplit(url).netloc.rpartition("@")[0]:
        raise RecipeError(
            f"a {scheme}:// URL with a password in it: credentials are taken from the "
            "environment or the store's own configuration, never from a URL"
        )
    if scheme in UNLISTED:
        raise RecipeError(f"{scheme}:// cannot be listed or written to: name the store itself")
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        raise RecipeError(f"{scheme}:// needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise RecipeError(f"{scheme}://: {error}") from error
    except Exception as error:  # of any store: what it cannot do without its configuration
        raise RecipeError(f"{scheme}:// cannot be opened: {_told(error)}") from error
    return fs, path


def scheme_of(url: str) -> str:
    """Return the `s3` of `s3://bucket`; nothing for a path."""
    scheme, marked, _ = url.partition("://")
    return scheme if marked else ""


def is_local(fs: Any) -> bool:
    """Say whether a file system is the disk of this machine."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def absolute(url: str) -> str:
    """Return a path or URL as any process on any node may open it, without a `/` at its end."""
    fs, path = filesystem(url)
    return _url(fs, path).rstrip("/")


def _url(fs: Any, path: str) -> str:
    return path if is_local(fs) else str(fs.unstrip_protocol(path))


def list_files(url: str) -> dict[str, Mapping[str, Any]]:
    """Return the files that a file, folder or pattern (`*`, `**`) means: URL -> what is known.

    Of a folder those that stand in it, not deeper. Sorted by name. Raises DataError for a
    place that cannot be read, RecipeError as `filesystem` does.
    """
    fs, path = filesystem(url)

    def listed() -> dict[str, Any]:
        fs.invalidate_cache()
        if _is_pattern(fs, path):
            return _matching(fs, path)
        info = _followed(fs, fs.info(path))
        return dict(_beneath(fs, path, 1)) if info["type"] == "directory" else {path: info}

    return _files(fs, _heard(listed, url))


def list_beneath(url: str) -> dict[str, Mapping[str, Any]]:
    """Return all files beneath a folder, as `list_files` does; none where it is not there."""
    fs, path = filesystem(url)

    def listed() -> dict[str, Any]:
        fs.invalidate_cache()
        try:
            return dict(_beneath(fs, path, DEEPEST))
        except FileNotFoundError:
            return {}

    return _files(fs, _heard(listed, url))


def _matching(fs: Any, pattern: str) -> dict[str, Any]:
    from fsspec.utils import glob_translate

    root = _fixed_part(pattern)
    rest = pattern.removeprefix(root).strip("/")
    depth = DEEPEST if "**" in rest else rest.count("/") + 1
    wanted = re.compile(glob_translate(pattern))
    return {name: info for name, info in _beneath(fs, root, depth) if wanted.fullmatch(name)}


def _is_pattern(fs: Any, path: str) -> bool:
    """Say whether a path means all files that match it: a disk may hold a folder `run[1]`."""
    marked = any(sign in path for sign in PATTERN_SIGNS)
    return marked and not (is_local(fs) and Path(path).exists())


def _fixed_part(pattern: str) -> str:
    """Return the innermost folder of a pattern that has no sign of a pattern in its path."""
    while any(sign in pattern for sign in PATTERN_SIGNS):
        pattern = pattern.rpartition("/")[0]
    return pattern


def root_of(url: str) -> str:
    """Return what `list_files` looks through: a folder itself, or that before a pattern."""
    fs, path = filesystem(url)
    whole = absolute(url)
    return _fixed_part(whole) if _is_pattern(fs, path) else whole


def _beneath(fs: Any, folder: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield (path, info) of the files so many folders deep; raises what the store raises.

    `fs.glob` and `fs.find` leave out a folder whose listing fails: shards would be missed.
    """
    for entry in fs.ls(folder, detail=True):
        path = entry["name"].rstrip("/")
        info = _followed(fs, entry)
        if info["type"] != "directory":
            yield path, info
        elif depth > 1 and path != folder.rstrip("/"):  # some list a folder in itself
            yield from _beneath(fs, path, depth - 1)


def _followed(fs: Any, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is known of a file; of a disk's symbolic link, of what it leads to.

    A link that leads nowhere stays one, and who reads it says so; one that leads to a folder it
    stands in, or was reached through, does too, as its files would come again and again.
    """
    if not info.get("islink"):
        return info
    place = Path(info["name"])
    there = Path(os.path.realpath(place))  # `Path.resolve` raises where links go in a circle
    around = [Path(os.path.realpath(folder)) for folder in place.parents]
    if not there.exists() or around[0].is_relative_to(there) or there in around:
        return info
    return {**fs.info(str(there)), "name": info["name"]}


def _files(fs: Any, listed: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    every = sorted(listed.items())
    return {_url(fs, path): info for path, info in every if info["type"] != "directory"}


def _heard(listed: Callable[[], dict[str, Any]], url: str) -> dict[str, Any]:
    try:
        return patiently(listed, url)
    except FileNotFoundError as error:
        raise DataError(f"{url}: no such file or folder") from error
    except OSError as error:
        raise DataError(f"{url}: cannot be listed: {_told(error)}") from error


def mark_of(info: Mapping[str, Any]) -> str:
    """Return what tells a file's content from a later one: its ETag, or when it was written.

    Nothing where the store says neither; its size counts alone then.
    """
    return next((f"{key} {info[key]}" for key in MARKS if info.get(key) is not None), "")


def patiently(work: Callable[[], Result], url: str) -> Result:
    """Return what `work` returns, asking again after a failure that may pass.

    Raises ConnectionError with the place and the last failure; FileNotFoundError and
    PermissionError, which do not pass, at once.
    """
    for pause in PAUSES:
        try:
            return work()
        except LASTING:
            raise
        except Exception:  # noqa: BLE001 - of any store, each has its own; the last try raises
            time.sleep(pause)
    try:
        return work()
    except LASTING:
        raise
    except Exception as error:
        raise ConnectionError(f"{url}: {_told(error)}") from error


def is_of_store(error: Exception) -> bool:
    """Say whether a store or disk failed; pyarrow's OSError of damaged bytes has no number."""
    return isinstance(error, ConnectionError) or getattr(error, "errno", None) is not None


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def opened(url: str) -> Iterator[Any]:
    """Yield a file to read at any place of it; a read that fails is asked again.

    Raises OSError naming the place.
    """
    fs, path = filesystem(url)
    if is_local(fs):
        with Path(path).open("rb") as file:
            yield file
        return
    # Without a cache: Parquet's reader asks for what it needs, in large pieces.
    with contextlib.closing(patiently(lambda: fs.open(path, "rb", cache_type="none"), url)) as file:
        yield _Patient(file, url)


class _Patient:
    """A file of a store whose reads are asked again; as much of one as pyarrow needs."""

    def __init__(self, file: Any, url: str) -> None:
        self._file, self._url = file, url
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        def read() -> bytes:
            self._file.seek(self._place)
            return bytes(self._file.read(size))

        found = patiently(read, self._url)
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = int(self._file.seek(offset, whence))
        return self._place

    def tell(self) -> int:
        return self._place

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def close(self) -> None:
        """Leave it open: whoever opened it closes it."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def put(file: Path, url: str) -> None:
    """Have a store hold a file under a name, complete or not at all; asked again on failure.

    A store that renames gets it under a temporary name first. Where copying would stand for
    renaming (object storage), the file is put at once: such stores show it when it is whole.
    Raises OSError naming the place.
    """
    from fsspec.spec import AbstractFileSystem

    fs, path = filesystem(url)
    renames = type(fs).mv is not AbstractFileSystem.mv
    folder, _, name = path.rpartition("/")
    target = f"{folder}/.{name}.{os.getpid()}.tmp" if renames else path
    patiently(lambda: fs.put_file(str(file), target), url)
    if not renames:
        return

    def rename() -> None:
        fs.invalidate_cache()
        try:
            fs.info(target)
        except FileNotFoundError:
            fs.info(path)  # an earlier try renamed it, and no reply came
            return
        if fs.exists(path):
            fs.rm_file(path)  # some rename over nothing only
        fs.mv(target, path)

    patiently(rename, url)


def remove(urls: Sequence[str]) -> None:
    """Remove files; one that is gone already is no error. Raises OSError naming the place."""
    for url in urls:
        fs, path = filesystem(url)
        with contextlib.suppress(FileNotFoundError):
            patiently(functools.partial(fs.rm_file, path), url)
