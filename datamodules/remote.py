"""Bytes of a shard from elsewhere: ``http(s)://``, ``s3://`` and ``pipe:`` (a shell command that writes the tar).

What may pass is tried again, each time after a longer wait: refused connections, timeouts, 408, 429 and 5xx answers,
transfers that break off or do not give the bytes that were promised. What will not pass (no such object, no right to
read it) ends at once. Nothing waits for ever: a silent connection or command is given up after ``Retries.silence_s``.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import random
import selectors
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from streamchar.errors import DataError, InputError

log = logging.getLogger(__name__)

SCHEMES = ("http://", "https://", "s3://", "pipe:")
BLOCK = 1 << 20
PASSING = (408, 425, 429)
NO_COMMAND = (126, 127)
"""With these a shell ends where it cannot run what it was given."""


class GoneError(DataError):
    """One object cannot be had, and trying again will not help; others may well be there."""


class StorageError(DataError):
    """The storage did not answer, however often it was asked."""


class _Passing(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class Retries:
    """``times`` tries in all; waits of ``first_s`` x 2^n seconds, at most ``most_s``, each shortened at random by up to
    half, so that many readers do not come back together."""

    times: int = 7
    first_s: float = 1.0
    most_s: float = 60.0
    silence_s: float = 60.0

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return min(self.first_s * 2 ** (failures - 1), self.most_s) * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Expected:
    """What a shard's index says of it; None is not checked."""

    bytes: int | None = None
    sha256: str | None = None


def is_remote(name: str) -> bool:
    """Whether ``name`` is read over one of :data:`SCHEMES`."""
    return name.startswith(SCHEMES)


def join(base: str, name: str) -> str:
    """The address of ``name`` below ``base``; in a ``pipe:`` command it takes the place of ``{}``."""
    return base.replace("{}", name) if base.startswith("pipe:") else f"{base.rstrip('/')}/{name}"


def fetch(url: str, path: Path, expected: Expected = Expected(), retries: Retries = Retries()) -> None:
    """Write the object at ``url`` to the file ``path``, anew at every try.

    Raises:
        GoneError: it is not there, may not be read, or is not what the index says after all tries.
        StorageError: every try failed.
        InputError: the scheme needs a package that is not installed.
        OSError: the file cannot be written.
    """
    begun = time.monotonic()
    for number in range(1, retries.times + 1):
        try:
            with open(path, "wb") as target:
                _copy(url, target, expected, retries.silence_s)
            return
        except _Passing as failure:
            if number == retries.times:
                kind, remedy = ((GoneError, "the shard is damaged there: copy it anew") if "index says" in str(failure)
                                else (StorageError, "check the storage, then give the same command again: training "
                                                    "goes on from its newest checkpoint"))
                raise kind(f"{url} cannot be read, tried {number} times over {time.monotonic() - begun:.0f} s: "
                           f"{failure}; {remedy}") from failure
            wait = retries.wait_s(number)
            log.warning("%s: %s (try %d of %d), again in %.1f s", url, failure, number, retries.times, wait)
            time.sleep(wait)


def _copy(url: str, target: BinaryIO, expected: Expected, silence_s: float) -> None:
    digest = hashlib.sha256()
    size = 0
    for block in _blocks(url, silence_s):
        target.write(block)
        if expected.sha256:
            digest.update(block)
        size += len(block)
    if expected.bytes is not None and size != expected.bytes:
        raise _Passing(f"{size} bytes came, the index says {expected.bytes}")
    if expected.sha256 and digest.hexdigest() != expected.sha256:
        raise _Passing(f"sha256 is {digest.hexdigest()[:12]}, the index says {expected.sha256[:12]}")
    target.flush()
    os.fsync(target.fileno())


def _blocks(url: str, silence_s: float) -> Iterator[bytes]:
    if url.startswith("pipe:"):
        return _pipe_blocks(url.removeprefix("pipe:"), silence_s)
    return _s3_blocks(url) if url.startswith("s3://") else _http_blocks(url, silence_s)


def _http_blocks(url: str, silence_s: float) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=silence_s) as answer:
            promised = answer.headers.get("Content-Length")
            came = 0
            while block := answer.read(BLOCK):
                came += len(block)
                yield block
            if promised is not None and came != int(promised):
                raise _Passing(f"the connection ended after {came} of {promised} bytes")
    except urllib.error.HTTPError as error:
        if error.code in PASSING or error.code >= 500:
            raise _Passing(f"HTTP {error.code} {error.reason}") from error
        raise GoneError(f"{url}: HTTP {error.code} {error.reason}; check the address and the right to read "
                        "it") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _Passing(str(getattr(error, "reason", None) or error or type(error).__name__)) from error


def _s3_blocks(url: str) -> Iterator[bytes]:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source:
            while block := source.read(BLOCK):
                yield block
    except ImportError as error:
        raise InputError(f"{url} needs the package s3fs, which is not installed: pip install s3fs "
                         "(or read it by pipe:aws s3 cp URL -)") from error
    except (FileNotFoundError, PermissionError) as error:
        raise GoneError(f"{url}: {type(error).__name__}: {error}; check the address and the credentials") from error
    except Exception as error:  # every client has its own exceptions for what may pass
        if "Credentials" in type(error).__name__:
            raise GoneError(f"{url}: {error}; give credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                            "AWS_PROFILE)") from error
        raise _Passing(f"{type(error).__name__}: {error}") from error


def _pipe_blocks(command: str, silence_s: float) -> Iterator[bytes]:
    """Output of a shell command, in a process group of its own so that nothing of it is left behind."""
    process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                               start_new_session=True)
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not ready.select(silence_s):
                    raise _Passing(f"the command wrote nothing for {silence_s:g} s")
                block = os.read(process.stdout.fileno(), BLOCK)
                if not block:
                    break
                yield block
        code = process.wait()
        if code in NO_COMMAND:
            raise GoneError(f"pipe:{command}: the shell finds no such command, or may not run it (code {code}); "
                            "install it, or write its whole path")
        if code:
            raise _Passing(f"the command ended with code {code}")
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
