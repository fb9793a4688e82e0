"""The checkout's uncommitted changes as one patch to be read: nothing that git ignores, secrets hidden, size bounded.

It is kept as ``difference_XXXXXXXX.patch`` beside ``provenance.json``, called by the hash that stands there, so that a
run which went on with other changes has both. ``git apply`` takes it where nothing was hidden, cut or binary; new links
are left out.
"""

from __future__ import annotations

import os
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from callbacks.redaction import redact_code

LIMIT = 1_000_000
"""Characters that are kept of the whole, and bytes of one new file."""
PRIVATE = (".env", "*.env", ".env.*", "*.pem", "*.key", "*.p12", "id_rsa*", "id_ed25519*", ".netrc", ".npmrc",
           ".pypirc", "*credential*", "*secret*", "kubeconfig*")
"""Names of files and folders that hold secrets as a rule: told by name alone, should git not ignore them."""


def difference_file(code: dict[str, Any]) -> str:
    """Name of the patch of a :func:`pipelines.provenance.code_state`; empty where nothing differs."""
    return f"difference_{code['difference_sha256'][:8]}.patch" if code.get("difference_sha256") else ""


def code_difference(checkout: Path, limit: int = LIMIT) -> str:
    """Changed files against HEAD, then new ones; what is left out or cut is told in lines that begin with ``#``."""
    changed = git(checkout, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/",
                  "--dst-prefix=b/", "--", ".", *(f":(exclude,glob,icase)**/{pattern}{below}" for pattern in PRIVATE
                                                    for below in ("", "/**")))
    head = [] if changed is not None else ["# git could not tell how files differ\n"]
    private = [name for name in _names(git(checkout, "diff", "HEAD", "--name-only", "-z")) if _private(name)]
    head += [f"# {name}: changed, left out as a file that may hold secrets\n" for name in private]
    parts, new = [*head, (changed or b"").decode("utf-8", "replace")], new_files(checkout)
    while new and sum(map(len, parts)) <= limit:  # data left in a checkout can be many thousand files
        parts.append(_new_file(checkout, new.pop(0), limit))
    more = f"# {len(new):,} more new files were not looked at\n" if new else ""
    text = redact_code("".join(parts)).encode("utf-8", "replace").decode()  # names of files need not be UTF-8
    if len(text) <= limit:
        return text + more
    kept = text[:text.rfind("\n", 0, limit) + 1]
    return f"{kept}# cut here: {len(text) - len(kept):,} of {len(text):,} characters are left out\n{more}"


def new_files(checkout: Path) -> list[str]:
    """Files that git neither knows nor ignores."""
    names = _names(git(checkout, "ls-files", "-z", "--others", "--exclude-standard"))
    return [name for name in names if (checkout / name).is_file() and not (checkout / name).is_symlink()]


def git(checkout: Path, *arguments: str) -> bytes | None:
    """What git says; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _new_file(checkout: Path, name: str, limit: int) -> str:
    """A new file as git would show it."""
    if _private(name):
        return f"# {name}: new, left out as a file that may hold secrets\n"
    try:
        size = (checkout / name).stat().st_size
        data = (checkout / name).read_bytes() if size <= limit else b"\0"
    except OSError as error:
        return f"# {name}: new, cannot be read ({error.strerror})\n"
    if b"\0" in data:
        return f"# {name}: new, {size:,} bytes that are no text or too many, left out\n"
    lines = data.decode("utf-8", "replace").split("\n")
    whole = lines[-1] == ""
    lines = lines[:-1] if whole else lines
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    body = "".join(f"+{line}\n" for line in lines) + ("" if whole else "\\ No newline at end of file\n")
    return head + (f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{body}" if lines else "")


def _private(name: str) -> bool:
    return any(fnmatch(part.lower(), pattern) for part in Path(name).parts for pattern in PRIVATE)


def _names(listed: bytes | None) -> list[str]:
    return sorted(os.fsdecode(name) for name in (listed or b"").split(b"\0") if name)
