"""Compiled programs of the command line, kept for the next time: in the user's cache directory."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax

from funcnet.datasets.archive import cache_directory

LIMIT = 256 * 2**20  # bytes of programs that are kept


def keep_compiled() -> None:
    """Have JAX keep what it compiles, and take it from there the next time.

    Programs are code: they are kept in a directory that nobody else may enter, or not at all. Those
    of other machines, which may share a home, and of other versions of JAX, lie in others. One that
    the user has chosen by `JAX_COMPILATION_CACHE_DIR` stays what it is, and
    `JAX_ENABLE_COMPILATION_CACHE=false` turns all of it off, as JAX says.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_directory() / "compiled" / f"jax-{jax.__version__}-{_machine()}"
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_private(each):
                return
        _forget_oldest(folder.parent)
    except OSError:  # a disk that is full, or may not be written: it is no slower than without
        return
    # On some machines XLA writes to standard error that it reads what it compiled there.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _machine() -> str:
    """What tells apart machines whose processors have different instructions."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # on Linux alone
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _is_private(folder: Path) -> bool:
    """Whether a directory is the user's own, and nobody else may enter it."""
    if not hasattr(os, "getuid"):  # Windows, where the cache directory is the user's
        return True
    found = folder.stat(follow_symlinks=False)
    return folder.is_dir() and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _forget_oldest(folder: Path) -> None:
    """Remove the programs that were kept first while there are too many."""
    kept = sorted(
        ((found.stat().st_mtime, found.stat().st_size, found) for found in folder.glob("*/*")),
        reverse=True,
    )
    total = 0
    for _, size, file in kept:
        total += size
        if total > LIMIT:
            file.unlink(missing_ok=True)
