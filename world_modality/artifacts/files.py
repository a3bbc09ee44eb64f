"""Files that are written completely or not at all, and hashes of their content. Light (no torch).

A file or folder is written to `.<name>.partial/` next to its final place and renamed when it is complete. Its writer
holds a lock on that folder. The system releases the lock even when the writer is killed, and the next writer removes
what it left behind.

Non-obvious behaviour: a forked child (a loader's worker) holds its parent's lock too, and outlives a killed parent by a
moment. So the next writer waits a little before it gives up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml

from world_modality.errors import InputError

LOCK_PATIENCE = 10.0  # seconds
FULL = 2**16  # a disk with less room than this is full [bytes]
# A file has settled so long after its last change [ns]: longer than a tick, or than two machines' clocks may differ.
SETTLED = 2_000_000_000

_hashes: dict[tuple[str | int, ...], str] = {}  # of settled files, by path and state


@contextlib.contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Yield a temporary path (same suffix) next to `final`, and rename it to `final` on success.

    The caller creates a file or a folder there. An existing `final` is replaced. An error leaves nothing behind. What
    a killed writer left behind is removed by the next writer.

    Raises:
        InputError: another process is writing `final` at this moment, or there is no room or no permission for it.
        FileNotFoundError: the caller wrote nothing.
    """
    final = Path(final)
    scratch = final.with_name(f".{final.name}.partial")
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{final}: cannot be written ({error.strerror})") from error
    with _held(scratch, final):
        _clear(scratch)
        temporary = scratch / final.name
        try:
            yield temporary
            if not temporary.exists():
                raise FileNotFoundError(f"{final}: nothing was written")
            if final.is_dir() and not final.is_symlink():  # renaming cannot replace a folder that is not empty
                os.replace(final, scratch / "replaced")
            os.replace(temporary, final)
        except Exception as error:  # a full disk is another error with each library
            if shutil.disk_usage(scratch).free < FULL or os.strerror(errno.ENOSPC) in str(error):
                raise InputError(f"{final.parent}: no space left on its disk; {final.name} was not written") from error
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _held(scratch: Path, final: Path) -> Iterator[None]:
    descriptor = os.open(scratch, os.O_RDONLY)
    try:
        patient_until = time.monotonic() + LOCK_PATIENCE
        while not _locked(descriptor, scratch):
            if time.monotonic() > patient_until:
                raise InputError(f"{final}: another process is writing it at this moment")
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, scratch: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not scratch.exists() or os.fstat(descriptor).st_ino != scratch.stat().st_ino:
        raise InputError(f"{scratch}: was removed by another process that has just written it; start again")
    return True


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | Path) -> str:
    """Read UTF-8.

    Raises:
        InputError: the file is damaged; the message names it.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: damaged ({error})") from None


def json_text(content: Any) -> str:
    """Deterministic JSON: sorted keys, one-space indent, NaN refused."""
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | Path, content: Any) -> None:
    write_text(path, json_text(content))


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is truncated or not JSON; the message names it.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not a whole JSON file ({error})") from None


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Read JSON Lines.

    Raises:
        InputError: a line is truncated or no JSON object; the message names it.
    """
    lines = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            raise InputError(f"{path}:{number}: not a whole line of JSON") from None
        if not isinstance(lines[-1], dict):
            raise InputError(f"{path}:{number}: not a JSON object")
    return lines


def write_run_config(config: dict[str, Any], path: str | Path) -> None:
    """Write the merged configuration, for people and `make costs`; of it a later run reads only the commits."""
    write_text(path, yaml.safe_dump(config, sort_keys=False))


def read_run_config(path: str | Path) -> dict[str, Any]:
    """Read what `write_run_config` wrote.

    Raises:
        InputError: it is missing or not YAML.
    """
    try:
        return yaml.safe_load(read_text(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the experiment first (make decision)") from None
    except yaml.YAMLError:
        raise InputError(f"{path}: not a whole YAML file") from None


def file_sha256(path: str | Path) -> str:
    """Hash a file. A file that has settled is hashed only once per process.

    The system updates a file's ctime at every change, and no program can set it back. Once the ctime is well in the
    past, any later change would give the file a new ctime, so its hash can be kept. Opening the file first makes a
    network file system ask its server for the file's present state.
    """
    with open(path, "rb") as file:
        now, state = time.time_ns(), _state(file)
        key = (os.path.realpath(path), *state)
        if key not in _hashes:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if state.changed > now - SETTLED or state != _state(file):
                return sha256
            _hashes[key] = sha256
    return _hashes[key]


class _State(NamedTuple):
    """What the system knows of a file; some of it changes whenever the file does."""

    device: int
    inode: int
    size: int
    modified: int  # [ns]
    changed: int  # ctime [ns]


def _state(file: IO[bytes]) -> _State:
    found = os.fstat(file.fileno())
    return _State(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def file_hashes(folder: str | Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Hash of each file of a folder by its relative name, in order, except those named in `without`.

    Raises:
        InputError: a folder in it is a link, so its files would not be found.
    """
    folder = Path(folder)
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() and path.is_dir():
            raise InputError(f"{path}: a link to a folder, whose files no hash would cover; put the folder itself here")
    named = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return {name: file_sha256(path) for name, path in named.items() if name not in without}


def listing_sha256(hashes: Mapping[str, str]) -> str:
    """Hash of a folder, given its `file_hashes`."""
    return text_sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in hashes.items()))


def tree_sha256(folder: str | Path) -> str:
    """Hash a folder: the sorted relative names of its files and their contents.

    Raises:
        InputError: as `file_hashes`.
    """
    return listing_sha256(file_hashes(folder))


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
