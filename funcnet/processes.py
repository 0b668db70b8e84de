"""Several processes that train one net: how they find each other, and what they agree on.

Each of them runs the same program with the same arguments. What one decides by its clock or its
callback all must do, or they would wait for each other: so it is agreed on.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from funcnet import checks

__all__ = ["join_processes"]

Made = TypeVar("Made")
HEARTBEAT = 30  # seconds after which a process that is silent counts as dead
PATIENCE = 60  # seconds to wait for all to begin
SAVING = 3600  # seconds that others wait while the first one evaluates and saves
PROCESS_ID = checks.NATURAL
# What says how many processes there are where a launcher has begun them: Slurm's, Open MPI's.
LAUNCHED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def join_processes(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> int:
    """Join other processes, before anything is computed; then `jax.devices()` are those of all.

    Args:
      coordinator: HOST:PORT at which process 0 is found by all; it listens there alone, so
        127.0.0.1 is for processes of one machine.
      processes: how many there are.
      process_id: which one this is, from 0. Without any of the three they are found where Slurm's
        srun or Open MPI's mpirun has begun several; else this one is alone.
    Returns:
      The number of processes.
    Raises:
      ValueError: arguments are wrong.
      TypeError: a count is no integer.
      RuntimeError: the others are not found within a minute, or something was computed already.
    Example:
      >>> fn.join_processes()  # alone: nothing to join
      1
    """
    given = coordinator, processes, process_id
    options: dict[str, Any] = {
        "heartbeat_timeout_seconds": HEARTBEAT,
        "initialization_timeout": PATIENCE,
        "shutdown_timeout_seconds": SAVING,
    }
    if given == (None, None, None):
        if all(int(os.environ.get(name, "1")) <= 1 for name in LAUNCHED):
            return 1
        jax.distributed.initialize(**options)
        return jax.process_count()
    if processes == 1 and coordinator is None:
        return 1
    if coordinator is None or processes is None or process_id is None:
        raise ValueError("coordinator, processes and process_id belong together: give all three")
    processes = checks.COUNT.check("processes", processes)
    process_id = checks.Count(at_least=0, at_most=processes - 1).check("process_id", process_id)
    jax.distributed.initialize(
        coordinator_address=_address(coordinator),
        num_processes=processes,
        process_id=process_id,
        coordinator_bind_address=_address(coordinator),
        **options,
    )
    return processes


def _address(coordinator: str) -> str:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"coordinator must be HOST:PORT, such as 127.0.0.1:1234, got {coordinator}"
        )
    return f"127.0.0.1:{port}" if host == "localhost" else coordinator


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def check_same(facts: Mapping[str, str]) -> None:
    """Raise unless all processes have the same facts, texts by name.

    Raises:
      ValueError: in each of them; it says which differ. ConnectionError: one has ended.
    """
    digests = [hashlib.sha256(f"{name} {text}".encode()).digest() for name, text in facts.items()]
    own = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    every = _together(multihost_utils.process_allgather, own)  # [processes, facts, 32]
    differ = (every != every[:1]).any(axis=(0, 2))
    names = [name for name, differs in zip(facts, differ, strict=True) if differs]
    if names:
        raise ValueError(
            f"processes do not agree about {', '.join(names)}: give all of them the same"
        )


def digest(tree: Any) -> str:
    """A text by which trees of arrays are told apart."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def first_then_others(first: Callable[[], Made], others: Callable[[], Made]) -> Made:
    """What the first process makes, and, when it has, what each of the others does.

    Raises:
      ValueError, OSError: what the first one raises; in the others, that it did.
    """
    made, error = None, None
    if is_first():
        try:
            made = first()
        except (OSError, ValueError) as raised:
            error = raised
    (failed,) = agreed(error is not None)
    if error is not None:
        raise error
    if failed:
        raise ValueError("the first process cannot begin: it says why")
    return made if is_first() else others()  # type: ignore[return-value]


def agreed(*decisions: bool) -> list[bool]:
    """What any of the processes decides."""
    every = _together(multihost_utils.process_allgather, np.array(decisions, np.int32))
    return [bool(np.any(own)) for own in every.T]


def of_first(number: int) -> int:
    """The number that the first process has."""
    return int(_together(multihost_utils.broadcast_one_to_all, np.int32(number)))


def _together(function: Callable[[Any], Any], value: Any) -> np.ndarray:
    """What all processes compute together of a value.

    Raises:
      ConnectionError: one of them has ended.
    """
    try:
        return np.asarray(function(value))
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if "Gloo" not in str(error) and isinstance(error, ValueError):
            raise
        raise ConnectionError(f"another process has ended: {str(error)[:200]}") from None
