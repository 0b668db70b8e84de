"""The members of a sweep on disk: what it goes on from after it was cut off, to the same bits.

    members-00000007.safetensors   members that are trained side by side, as they were last
    .lock                          held while a sweep writes here

Each file is one for many members, their arrays with an axis for them in front. One that is newer
counts for the members in it, and those that count for none are removed.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from funcnet.checkpoint import path_leaves, tree_like
from funcnet.checkpoints import (
    Pace,
    check_history,
    check_identity,
    described,
    files_in,
    held,
    key_text,
    made_by,
    preprocess_text,
)
from funcnet.datasets.dataset import fingerprint
from funcnet.files import parse_json
from funcnet.history import columns, history_of
from funcnet.model import BestModel, Model
from funcnet.program import Numbers, Program
from funcnet.step import params_in_use
from funcnet.sweeps.chunks import Course
from funcnet.sweeps.groups import Group
from funcnet.sweeps.programs import stack
from funcnet.sweeps.search import Settings, member_key
from funcnet.sweeps.table import STATUSES, Member, new_member
from funcnet.tensors import load_tensors, save_tensors
from funcnet.text import one_line

_NEW, _OLD = r"members-(\d+)\.safetensors", r"(\d+)\.safetensors"  # an old one has the member i


class SavedMembers:
    """The members in a directory that this process holds.

    Args:
      directory: the directory.
      identity: what the sweep is made of, texts by name: those of the files must be the same.
      every: save after every so many epochs of a chunk; None as often as takes 1 % of the time.
    """

    def __init__(self, directory: Path, identity: Mapping[str, str], *, every: int | None) -> None:
        self._directory, self._identity = directory, dict(identity)
        self._every, self._pace = every, Pace()
        self._files: dict[Path, set[int]] = {}  # of which members each is, the newest last
        self._saved: dict[int, tuple[int, str]] = {}
        self._sizes: list[int] | None = None

    def load(
        self, settings: Sequence[Settings], groups: Sequence[Group], key: jax.Array | None
    ) -> tuple[Member, ...] | None:
        """The members as far as they were saved; None if there are none.

        Args:
          settings: those of all members.
          groups: their groups.
          key: as for `sweep`.
        Raises:
          ValueError: a file is damaged, or of another sweep: what differs is named.
        """
        task, files = groups[0].plan.task, _member_files(self._directory)
        members = [new_member(each, task) for each in settings]
        group_of = {i: group for group in groups for i in group.members}
        makers = set()
        for path in files:
            leaves, metadata = load_tensors(path, kind="member")
            facts = parse_json(metadata.get("run", "null"), path)
            try:
                if facts is None:  # of before version 3
                    indices = [int(path.stem)]
                else:
                    indices = [_count(i, least=0) for i in facts["members"]]
                    check_identity(facts["identity"], self._identity, path, "sweep")
                    self._sizes = [_count(size, least=1) for size in facts["chunk_sizes"]]
                    makers.add(json.dumps(facts["by"]))
                found = _loaded(path, leaves, indices, settings, group_of[indices[0]], key)
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(
                    f"{path} is damaged: it does not hold what it should ({one_line(error)})"
                ) from None
            self._files[path] = set(indices)
            for i, member in zip(indices, found, strict=True):
                members[i] = member
        if makers - {json.dumps(made_by())}:
            warnings.warn(
                f"{self._directory} was made on another machine or by another version: "
                f"{', '.join(sorted(makers))}, here {json.dumps(made_by())}; from here on "
                "roundings may differ",
                stacklevel=3,
            )
        self._saved = _marks(members)
        return tuple(members) if files else None

    def resized(self, groups: Sequence[Group], chunk_size: int | None) -> list[Group]:
        """The groups with chunks of the size that they had, unless another one is wanted."""
        sizes = self._sizes
        if sizes is None or len(sizes) != len(groups) or chunk_size is not None:
            sizes = [group.chunk_size for group in groups]
        self._sizes = sizes
        return [group._replace(chunk_size=n) for group, n in zip(groups, sizes, strict=True)]

    def is_due(self, epoch: int) -> bool:
        """Whether members are to be saved after an epoch of a chunk."""
        return self._pace.is_due() if self._every is None else epoch % self._every == 0

    def save(self, members_now: Callable[[], Sequence[Member]], groups: Sequence[Group]) -> None:
        """Write the members that have changed, and remove files that count for none.

        Raises:
          OSError, TypeError: they cannot be written; earlier files are left as they are.
        """
        with self._pace.spent():
            self._save(members_now(), groups)

    def _save(self, members: Sequence[Member], groups: Sequence[Group]) -> None:
        now = _marks(members)
        changed = {i for i, mark in now.items() if self._saved.get(i) != mark}
        alike: dict[Any, dict[int, dict[str, Any]]] = {}
        for number, group in enumerate(groups):
            for i in sorted(changed & {*group.members}):
                leaves = _leaves(members[i])
                kinds = ((name, str(leaf.dtype), leaf.shape) for name, leaf in leaves.items())
                alike.setdefault((number, *kinds), {})[i] = leaves
        for each in alike.values():
            self._write(each)
        self._saved = now
        newer: set[int] = set()
        for path, own in reversed(list(self._files.items())):
            if own <= newer:
                path.unlink(missing_ok=True)
                del self._files[path]
            newer |= own

    def _write(self, leaves: Mapping[int, Mapping[str, Any]]) -> None:
        last = list(self._files)[-1:]
        number = 1 + (_number(last[0], _NEW) or 0 if last else 0)
        path = self._directory / f"members-{number:08}.safetensors"
        facts = {
            "identity": self._identity,
            "by": made_by(),
            "members": list(leaves),
            "chunk_sizes": self._sizes,
        }
        stacked = stack([dict(each) for each in leaves.values()])
        save_tensors(path, stacked, kind="member", run=json.dumps(facts))
        self._files[path] = set(leaves)


@contextlib.contextmanager
def opened(
    path: str | os.PathLike[str], identity: Mapping[str, str], *, resume: bool, every: int | None
) -> Iterator[SavedMembers]:
    """The SavedMembers of a directory, which is made, and is held until the end.

    Raises:
      FileExistsError: there are some, and they are not to be resumed, or are of something else.
      BlockingIOError: another sweep writes there. OSError: the directory cannot be made.
    """
    with held(path, "sweep", resume=resume) as directory:
        yield SavedMembers(directory, identity, every=every)


def _member_files(path: Path) -> list[Path]:
    """The files of members in a directory, the newest last."""
    files = files_in(path)
    old = sorted((n, p) for p in files if (n := _number(p, _OLD)) is not None)
    new = sorted((n, p) for p in files if (n := _number(p, _NEW)) is not None)
    return [path for _, path in (*old, *new)]


def identity_of_sweep(
    groups: Sequence[Group],
    settings: Sequence[Settings],
    key: jax.Array | None,
    course: Course,
    halve_at: Sequence[int],
) -> dict[str, str]:
    """What a sweep is made of, texts by name: with the same, another comes to the same bits."""
    known: dict[int, str] = {}  # seeds share what was made

    def text(program: Program, numbers: Numbers) -> str:
        if id(program) not in known:
            parts = tuple(program[:6]), tuple(numbers[:3])  # what later ones have besides follows
            more = [] if numbers.class_weight is None else [described(numbers.class_weight)]
            known[id(program)] = " ".join([*map(described, parts), *more])
        return known[id(program)]

    datasets = {id(group.dataset): group.dataset for group in groups}.values()
    made = {i: text(g.programs[i], g.options[i]) for g in groups for i in g.members}
    return {
        "data": _only_or_all([fingerprint(each) for each in datasets]),
        "key": "of the seeds" if key is None else key_text(key),
        "settings": _digest(map(repr, settings)),
        "nets and optimizers": _digest(made[i] for i in sorted(made)),
        "preprocessing": _digest(preprocess_text(group.preprocess) for group in groups),
        "batch sizes": described(tuple(group.batch_size for group in groups)),
        "epochs": str(course.epochs),
        "halve_at": str(list(halve_at)),
        "eval_every": str(sorted(course.looks)),
        "patience": str(course.patience),
        "monitor": course.monitor,
    }


def _only_or_all(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else _digest(texts)


def _digest(texts: Iterable[str]) -> str:
    found = [text.encode() for text in texts]
    return f"{len(found)}, sha256 {hashlib.sha256(b'; '.join(found)).hexdigest()}"


def _count(value: Any, *, least: int) -> int:
    if not isinstance(value, int) or not least <= value < 2**31:
        raise TypeError("a number of members")
    return value


def _number(path: Path, pattern: str) -> int | None:
    found = re.fullmatch(pattern, path.name)
    return int(found[1]) if found else None


def _marks(members: Sequence[Member]) -> dict[int, tuple[int, str]]:
    """For each member that was begun what changes whenever it must be saved again."""
    return {i: (each.epochs, each.status) for i, each in enumerate(members) if each.epochs}


def _leaves(member: Member) -> dict[str, Any]:
    """The arrays of a member by path."""
    numbers = _arrays(epochs=member.epochs, status=STATUSES.index(member.status))
    history = {"loss": member.history.loss, **member.history.rows()}
    trees: dict[str, Any] = {"history": history}
    best, state, model = member.best, member.state, member.model
    if best is not None:
        measured = _arrays(epoch=best.epoch, accuracy=best.accuracy, loss=best.loss)
        trees["best"] = {"params": best.params, "state": best.state, "numbers": measured}
    if state is not None:
        trees["run"] = state._replace(key=None)  # type: ignore[arg-type]
    elif model is not None:
        trees["last"] = {"params": model.params, "state": model.state}
    return path_leaves({**trees, "numbers": numbers})


def _loaded(
    path: Path,
    leaves: Mapping[str, Any],
    indices: Sequence[int],
    settings: Sequence[Settings],
    group: Group,
    key: jax.Array | None,
) -> list[Member]:
    """The members in a file, NumPy arrays."""
    program, count = group.programs[indices[0]], len(indices)

    def trees(within: str, like: Any) -> list[Any]:
        """Of each member that below a path."""
        start = f"{within}/"
        if not any(name.startswith(start) for name in leaves):
            return [None] * count
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), like
        )
        known = {n: leaf for n, leaf in leaves.items() if not n.startswith(f"{start}numbers/")}
        tree = tree_like(known, wanted, path, within, convert=lambda leaf: leaf)
        return [jax.tree.map(lambda leaf, k=k: leaf[k, ...], tree) for k in range(count)]

    def both(of: Mapping[str, Any]) -> tuple[Any, Any]:
        return of["params"], of["state"]

    in_use = jax.eval_shape(lambda state: params_in_use(state, program=program), group.state)
    model_like = {"params": in_use, "state": group.state.state}
    best, last = trees("best", model_like), trees("last", model_like)
    run = trees("run", group.state._replace(key=None))  # type: ignore[arg-type]
    about: dict[str, Any] = {"encoding": group.dataset.encoding, "targets": group.targets}
    made = []
    for k, i in enumerate(indices):
        net, own_key = group.programs[i].net, jax.random.split(member_key(key, settings[i]))[1]
        numbers = {name: leaves[f"numbers/{name}"][k] for name in ("epochs", "status")}
        names = ("loss", *columns(group.plan.task))
        history = {name: leaves[f"history/{name}"][k] for name in names}
        best_model = model = None
        if best[k] is not None:
            epoch, accuracy, loss = (
                leaves[f"best/numbers/{name}"][k].item() for name in ("epoch", "accuracy", "loss")
            )
            parts = *both(best[k]), group.preprocess
            best_model = BestModel(net, *parts, epoch, accuracy, loss, **about)
        state = run[k] and run[k]._replace(key=own_key)
        if state is not None:
            params = params_in_use(state, program=program)
            model = Model(net, params, state.state, group.preprocess, **about)
        elif last[k] is not None:
            model = Model(net, *both(last[k]), group.preprocess, **about)
        made.append(
            Member(
                settings=dict(settings[i]),
                status=STATUSES[_count(numbers["status"].item(), least=0)],
                epochs=int(numbers["epochs"]),
                model=model,
                best=best_model,
                history=history_of(history, group.plan.task),
                state=state,
            )
        )
        check_history(history, best_model and best_model.epoch, path)
    return made


def _arrays(**numbers: float) -> dict[str, np.ndarray]:
    return {name: np.asarray(number) for name, number in numbers.items()}
