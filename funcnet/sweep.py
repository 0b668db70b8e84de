"""Sweeps: many trainings as one compiled program.

    def experiment(learning_rate, weight_scale):
        return mlp([100] * 5, 10, weight_scale=weight_scale), adam(learning_rate)

    settings = grid(learning_rate=[1e-3, 2e-3, 3e-4], weight_scale=[2e-2, 5e-2, 6e-2])
    result = sweep(experiment, load_cifar10(), settings, key=key, epochs=30, batch_size=200)

Settings that are floats, and `seed`, are traced: members that differ in nothing else are trained
by one program, which is compiled once. Every other kind of setting is structural: each
combination of their values is a group of members with a program of its own.
"""

import inspect
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import _check
from funcnet.datasets import Dataset, check_dataset
from funcnet.losses import softmax_loss
from funcnet.model import (
    BestModel,
    Evaluation,
    Model,
    evaluate,
    sums,
)
from funcnet.net import Layer
from funcnet.preprocess import Preprocess, subtract_mean
from funcnet.search import Settings, check_settings, describe, identity
from funcnet.step import (
    EVALUATION_BATCH,
    Numbers,
    Program,
    TrainState,
    as_numbers,
    as_program,
    check_batch_size,
    check_step,
    epoch_order,
    fit_preprocess,
    init_train_state,
    over_batches,
    params_in_use,
    run_step,
    slices,
    training_arrays,
)
from funcnet.train import History, training_sample

Tree = Any
Experiment = Callable[..., tuple[Any, ...]]
CPU_CACHE = 64 * 2**20  # bytes; on the CPU, members whose state is more are no faster together
HALVED = 8  # members; on the CPU, so many or more are faster as two halves, see `_parts`
OPTIONS: dict[str, Any] = {  # of `fit`, which `sweep` and the experiment may give, with defaults
    "reg": 0.0,
    "loss_fn": softmax_loss,
    "preprocess": subtract_mean,
    "augment": None,
    "label_smoothing": 0.0,
    "mixup_alpha": 0.0,
    "average_decay": None,
    "batch_size": None,
}
RESULTS = (
    "val_accuracy",
    "val_loss",
    "best_epoch",
    "final_train_accuracy",
    "final_val_accuracy",
    "epochs",
    "status",
)


class Member(NamedTuple):
    """One training of a sweep.

    Attributes:
      settings: its settings.
      status: "finished"; "diverged", if the loss of a step was not finite; "stopped", by
        successive halving; or "unfinished", if the sweep was interrupted.
      epochs: the number of epochs done.
      model: the Model after them, NumPy arrays; None if it was never begun.
      best: its BestModel by validation accuracy; None where none was measured.
      history: its History.
      state: its TrainState if it is unfinished, else None.
    """

    settings: Settings
    status: str
    epochs: int
    model: Model | None
    best: BestModel | None
    history: History
    state: TrainState | None


class SweepResult(NamedTuple):
    """What `sweep` returns.

    Attributes:
      members: a Member for each of the settings, in their order.
      best: the BestModel of the member with the best validation accuracy (of equals, the least
        validation loss) that did not diverge; None where none was measured.
      best_settings: the settings of that member.
      test: the Evaluation of `best` on the test set, the only time that it is used; None if the
        sweep was interrupted, or there is no test set.
      interrupted: whether Ctrl-C ended the sweep before its time.
    """

    members: tuple[Member, ...]
    best: BestModel | None
    best_settings: Settings | None
    test: Evaluation | None
    interrupted: bool

    def table(self) -> list[dict[str, Any]]:
        """The members as rows: their settings and what became of them, see `sweep_table`."""
        return sweep_table(self.members)


def sweep(
    experiment: Experiment,
    dataset: Dataset,
    settings: Iterable[Mapping[str, Any]],
    *,
    key: jax.Array | None = None,
    epochs: int,
    batch_size: int | None = None,
    eval_every: int | None = 1,
    halve_at: Sequence[int] = (),
    chunk_size: int | None = None,
    members: Sequence[Member] | None = None,
    callback: Callable[[int, int, Callable[[], tuple[Member, ...]]], None] | None = None,
    **options: Any,
) -> SweepResult:
    """Train one experiment with many settings.

    A member is the training that `fit` does with the net, the optimizer and the options that
    the experiment gives for its settings, and with the key `member_key(key, settings)`. So all
    members start from the same random numbers and see the same batches in the same order, and
    differences are due to the settings; a setting named `seed` is there to have others.

    Members that differ in floats and `seed` alone are trained side by side, by one program that
    is compiled once, in chunks. A member does not depend on those it is trained with, but for
    the rounding of sums: matrix products of many members are added up in another order.

    Args:
      experiment: `experiment(**settings) -> (net, optimizer)`, or `(net, optimizer, options)` with
        options of `fit` in a dict: reg, loss_fn, preprocess, augment, label_smoothing, mixup_alpha,
        average_decay, batch_size. It must not look at floats (`if rate > 0`), which are traced;
        preprocess and batch_size may depend on other settings alone.
        `seed` is given to it only if it has a parameter of this name.
      dataset: the Dataset.
      settings: a list of dicts, such as `grid(...)` and `random_search(...)` give.
      key: a random key, `jax.random.key(0)`; None if the settings have a seed, which is then all
        that is random about a member.
      epochs: the number of epochs.
      batch_size: examples per step; may come from the experiment instead.
      eval_every: as for `fit`.
      halve_at: epochs at which the worse half of the members that are left is stopped, by the best
        validation accuracy so far, and the diverged ones with it; the others go on in a smaller
        program (successive halving, Jamieson and Talwalkar 2016, arXiv 1502.07943).
      chunk_size: how many members are trained side by side; None is what half of the free
        memory holds, and on the CPU what its caches do.
      members: the members of an interrupted sweep of the same settings, to go on with; the key
        and the options must be those of that sweep.
      callback: `callback(done, total, members)` after each epoch of a chunk: epochs done and to
        do, of all members, and a function that gives the members as they are now.
        KeyboardInterrupt raised in it is as Ctrl-C.
      options: of `fit`, for all members: those above.
    Returns:
      A SweepResult: `.members`, `.best`, `.best_settings`, `.test`, `.table()`.
    Raises:
      ValueError, TypeError: an argument, a setting or what the experiment makes of it is wrong;
        before anything is compiled.
    """
    _check.function("experiment", experiment)
    if callback is not None:
        _check.function("callback", callback)
    dataset = check_dataset(dataset)
    epochs = _check.integer("epochs", epochs, at_least=1)
    if eval_every is not None:
        eval_every = _check.integer("eval_every", eval_every, at_least=1)
    if chunk_size is not None:
        chunk_size = _check.integer("chunk_size", chunk_size, at_least=1)
    halve_at = _check_halving(halve_at, epochs, eval_every, dataset)
    checked = check_settings(settings)
    _check_names(experiment, checked[0])
    member_key(key, checked[0])
    common = _check_options("sweep", {**options, "batch_size": batch_size})
    current = _first_members(checked, members, epochs, halve_at)
    groups = _groups(experiment, checked, common, dataset, chunk_size)
    looks = _looks(epochs, eval_every, halve_at)
    alive, chunk, interrupted = tuple(range(len(checked))), None, False

    def members_now() -> tuple[Member, ...]:
        return current if chunk is None else _with_chunk(current, chunk, epochs)

    try:
        for end in (*halve_at, epochs):
            for group, indices, size in _chunks(groups, alive, current, end):
                chunk = _begin(group, indices, size, current, key, dataset, looks)
                while chunk.epoch < end:
                    chunk = _advance(chunk, dataset, looks)
                    if callback is not None:
                        total = _total(current, alive, end, halve_at, epochs)
                        callback(_done(current, chunk), total, members_now)
                current = members_now()
                chunk = None
            if end < epochs:
                alive = _better_half(current, alive, end)
                current = _stopped(current, alive)
    except KeyboardInterrupt:
        interrupted = True
    current = members_now()
    index, best = best_member(current)
    if best is None:
        return SweepResult(current, None, None, None, interrupted)
    test = None
    if not interrupted and len(dataset.x_test):
        loss_fn = next(g.programs[index].loss_fn for g in groups if index in g.programs)
        test = evaluate(best, dataset.x_test, dataset.y_test, loss_fn=loss_fn)
    return SweepResult(current, best, current[index].settings, test, interrupted)


def member_key(key: jax.Array | None, settings: Mapping[str, Any]) -> jax.Array:
    """The key of a member of a sweep.

    It is `key`; or, if the settings have a seed, `fold_in(key, seed)`; or, if besides key is None,
    `jax.random.key(seed)`. `fit(net, optimizer, dataset, key=member_key(key, settings), ...)` is
    that member, alone.
    """
    if key is None:
        if "seed" not in settings:
            raise ValueError("give a key, such as jax.random.key(0), or settings with a seed")
        return jax.random.key(settings["seed"])
    key = _check.key(key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    return jax.random.fold_in(key, settings["seed"]) if "seed" in settings else key


def new_member(settings: Mapping[str, Any]) -> Member:
    """A member that was not begun."""
    none = History(np.zeros(0), np.zeros(0, int), *(np.zeros(0) for _ in range(4)))
    return Member(dict(settings), "unfinished", 0, None, None, none, None)


def sweep_table(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as rows, in their order.

    Each is a dict of the settings and of val_accuracy and val_loss, those of the best epoch by
    validation accuracy; best_epoch; final_train_accuracy, on the sample of `fit`, and
    final_val_accuracy, after the last epoch; epochs, those done; and status. What was not
    measured is None.
    """
    return [_row(member) for member in members]


def mean_over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table with those that differ in nothing but the seed made one.

    Returns:
      Rows with the settings less the seed; of val_accuracy, final_train_accuracy and
      final_val_accuracy the mean over the seeds that finished, and with the ending _std their
      standard deviation (N - 1; None of one); seeds, the number of those; and diverged, the
      number of those that did.
    """
    alike: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        settings = {name: value for name, value in row.items() if name not in (*RESULTS, "seed")}
        alike.setdefault(identity(settings), []).append(row)
    means = []
    for same in alike.values():
        mean: dict[str, Any] = {k: v for k, v in same[0].items() if k not in (*RESULTS, "seed")}
        done = [row for row in same if row["status"] == "finished"]
        for name in ("val_accuracy", "final_train_accuracy", "final_val_accuracy"):
            values = [row[name] for row in done if row[name] is not None]
            mean[name] = float(np.mean(values)) if values else None
            mean[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        mean["seeds"] = len(done)
        mean["diverged"] = sum(row["status"] == "diverged" for row in same)
        means.append(mean)
    return means


# Groups: members that one program trains.


class _Plan(NamedTuple):
    """What is compiled into the program of a group, but for the numbers of its members.

    Programs are not shared between calls of `sweep`: what the experiment reads besides its
    settings, such as a global of a notebook, may have changed.
    """

    call: object
    experiment: Experiment
    fixed: tuple[tuple[str, str, Any], ...]  # name, type and value of structural settings
    options: tuple[tuple[str, Any], ...]  # those of `sweep`


class _Group(NamedTuple):
    plan: _Plan
    members: tuple[int, ...]
    programs: dict[int, Program]  # of each member
    numbers: dict[int, dict[str, Any]]  # of each member: its traced settings
    preprocess: Preprocess
    in_shape: tuple[int, ...]
    data: tuple[jax.Array, jax.Array, Preprocess]  # as `training_arrays` gives them
    batch_size: int
    chunk_size: int


def _groups(
    experiment: Experiment,
    settings: Sequence[Settings],
    common: dict[str, Any],
    dataset: Dataset,
    chunk_size: int | None,
) -> list[_Group]:
    """The groups, everything in them checked."""
    takes_seed, call = "seed" in inspect.signature(experiment).parameters, object()
    static = tuple((k, v) for k, v in common.items() if k not in ("preprocess", "batch_size"))
    alike: dict[_Plan, dict[int, dict[str, Any]]] = {}  # for each plan the numbers of its members
    known: dict[Any, tuple[Program, Numbers, dict[str, Any]]] = {}  # seeds share what was made
    made = []
    for i, member in enumerate(settings):
        given = {k: v for k, v in member.items() if k != "seed" or takes_seed}
        traced = {k: v for k, v in given.items() if k == "seed" or isinstance(v, float)}
        fixed = identity({k: v for k, v in given.items() if k not in traced})
        plan = _Plan(call, experiment, fixed, static)
        try:
            if identity(given) not in known:
                known[identity(given)] = _make(plan, traced)
        except (TypeError, ValueError) as error:
            where = f" (settings[{i}]: {describe(member)})" if len(settings) > 1 else ""
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{error}{where}") from None
        made.append(known[identity(given)])
        alike.setdefault(plan, {})[i] = traced
    data = _Data(dataset, {}, {})
    return [
        _group(plan, numbers, [made[i] for i in numbers], common, data, chunk_size)
        for plan, numbers in alike.items()
    ]


class _Data(NamedTuple):
    """A dataset, with what several groups can share: preprocessing, and arrays on the device."""

    dataset: Dataset
    fitted: dict[int, Preprocess]
    arrays: dict[tuple[int, bool], tuple[jax.Array, jax.Array, Preprocess]]


def _group(
    plan: _Plan,
    numbers: dict[int, dict[str, Any]],
    made: Sequence[tuple[Program, Numbers, dict[str, Any]]],
    common: dict[str, Any],
    data: _Data,
    chunk_size: int | None,
) -> _Group:
    program, values, own = made[0]
    _check_traceable(plan, next(iter(numbers.values())))
    options, dataset = {**common, **own}, data.dataset
    if options["batch_size"] is None:
        raise ValueError("batch_size is missing: give it to sweep, or have experiment do so")
    batch_size = check_batch_size(options["batch_size"], dataset)
    for _, _, others in made:
        if not _alike(others.get("preprocess"), own.get("preprocess")):
            raise ValueError(
                "preprocess must not depend on a float or on seed, which differ within a program: "
                "make it depend on a structural setting, such as a string"
            )
    which = id(options["preprocess"])
    if which not in data.fitted:
        data.fitted[which] = fit_preprocess(options["preprocess"], dataset.x_train)
    fitted = data.fitted[which]
    in_shape = jax.eval_shape(fitted, dataset.x_train[:1]).shape[1:]
    init = partial(init_train_state, program.net, program.optimizer, in_shape)
    state = jax.eval_shape(lambda key: init(key=key), jax.random.key(0))
    check_step(program, values, fitted, state, dataset, batch_size)
    arrays = which, program.augment is not None
    if arrays not in data.arrays:
        data.arrays[arrays] = training_arrays(dataset, fitted, augments=arrays[1])
    return _Group(
        plan,
        tuple(numbers),
        dict(zip(numbers, (each[0] for each in made), strict=True)),
        numbers,
        fitted,
        in_shape,
        data.arrays[arrays],
        batch_size,
        chunk_size or _default_chunk_size(program.net, state, in_shape, batch_size),
    )


def _make(plan: _Plan, numbers: Mapping[str, Any]) -> tuple[Program, Numbers, dict[str, Any]]:
    """What the experiment makes of the settings of a member, whose numbers may be traced."""
    settings = {**{name: value for name, _, value in plan.fixed}, **numbers}
    made = plan.experiment(**settings)
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise TypeError(
            "experiment must return (net, optimizer) or (net, optimizer, options), "
            f"got {type(made).__name__}"
        )
    net, optimizer, own = (*made, {})[:3]
    own = _check_options("experiment", own)
    options = {**dict(plan.options), **own}
    program = as_program(
        net, optimizer, options["loss_fn"], options["augment"], options["average_decay"]
    )
    values = as_numbers(options["reg"], options["label_smoothing"], options["mixup_alpha"])
    return program, values, own


def _alike(a: Any, b: Any) -> bool:
    """Whether two functions, or what they are given, are the same, as far as one can see."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, partial):
        return _alike((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if inspect.isfunction(a):
        if a.__code__ is not b.__code__:
            return False
        given = [
            (f.__defaults__, f.__kwdefaults__, [cell.cell_contents for cell in f.__closure__ or ()])
            for f in (a, b)
        ]
        return _alike(*given)
    if isinstance(a, Preprocess):
        return _alike((a.kind, jax.tree.leaves(a)), (b.kind, jax.tree.leaves(b)))
    return bool(np.array_equal(a, b))


def _check_traceable(plan: _Plan, numbers: Mapping[str, Any]) -> None:
    """Raise if the experiment looks at numbers that are traced."""

    def make(numbers: Mapping[str, Any]) -> None:
        _make(plan, numbers)

    try:
        jax.eval_shape(make, {k: jnp.asarray(v) for k, v in numbers.items()})
    except (TypeError, ValueError) as error:  # without tracing there was none
        line = str(error).splitlines()[0]
        raise TypeError(
            "experiment must not look at the value of a float or of seed, which are traced: "
            f"make it a structural setting, such as a string, instead ({line})"
        ) from None


def _default_chunk_size(
    net: Layer, state: TrainState, in_shape: tuple[int, ...], batch_size: int
) -> int:
    """How many members to train side by side."""

    def size(tree: Any) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    def kept(count: int) -> int:
        x = jax.ShapeDtypeStruct((count, *in_shape), jnp.result_type(float))
        forward = partial(net.forward, key=jax.random.key(0), train=True)
        out, cache, _ = jax.eval_shape(forward, state.params, state.state, x)
        return size(cache) + size(out)

    params, moments = size((state.params, state.state)), size(state.opt_state)
    # The state before an epoch, in it and after it; gradients, updates, the best; activations.
    needed = 6 * params + 3 * moments + 2 * max(kept(batch_size), kept(EVALUATION_BATCH))
    limit = _free_bytes() // 2 // max(needed, 1)
    if jax.default_backend() == "cpu":
        limit = min(limit, CPU_CACHE // max(2 * params + moments, 1))
    return max(1, limit)


def _free_bytes() -> int:
    """The free memory of the device."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on every system
        return 4 * 2**30


# Chunks: members that are trained side by side.


class _Chunk(NamedTuple):
    """Members of a group in the course of training; arrays have an axis for them in front.

    The last member is there as often as it takes to fill a chunk, so that chunks of different
    numbers of members have the same program.
    """

    group: _Group
    indices: tuple[int, ...]
    numbers: dict[str, jax.Array]
    before: tuple[Member, ...]  # the members as they were when this chunk was begun
    state: TrainState  # the key has the axis only if members have different ones
    best: "_Best | None"
    losses: tuple[np.ndarray, ...]  # [members, steps] for each epoch
    rows: tuple[dict[str, Any], ...]
    epoch: int


class _Best(NamedTuple):
    """What is the best so far of each member."""

    params: Tree
    state: Tree
    epoch: Any
    accuracy: Any
    loss: Any


def _chunks(
    groups: Sequence[_Group], alive: Sequence[int], members: Sequence[Member], end: int
) -> list[tuple[_Group, tuple[int, ...], int]]:
    """What is to be trained until an epoch: groups, members, and the size of the chunk."""
    chunks, left = [], set(alive)
    for group in groups:
        among = [i for i in group.members if i in left]
        for indices, size in _divide(among, members, group.chunk_size):
            behind = [i for i in indices if members[i].epochs < end]
            behind.sort(key=lambda i: members[i].epochs)
            for _, same in itertools.groupby(behind, key=lambda i: members[i].epochs):
                chunks.append((group, tuple(same), size))
    return chunks


def _divide(
    indices: Sequence[int], members: Sequence[Member], limit: int
) -> list[tuple[list[int], int]]:
    """Members in chunks of equal size, those of a seed together unless that takes many more.

    Members of one seed see the same batches, which are fetched once for all of them.
    """
    by_seed: dict[Any, list[int]] = {}
    for i in indices:
        by_seed.setdefault(members[i].settings.get("seed"), []).append(i)
    apart = [math.ceil(len(same) / limit) for same in by_seed.values()]
    lists = list(by_seed.values())
    if len(indices) and sum(apart) > 1.5 * math.ceil(len(indices) / limit):
        lists = [list(indices)]
    pieces = []
    for same in lists:
        count = math.ceil(len(same) / math.ceil(len(same) / limit))
        pieces += [same[b] for b in slices(len(same), count)]
    size = max(map(len, pieces), default=0)
    return [(piece, size) for piece in pieces]


def _begin(
    group: _Group,
    indices: tuple[int, ...],
    size: int,
    members: Sequence[Member],
    key: jax.Array | None,
    dataset: Dataset,
    looks: frozenset[int],
) -> _Chunk:
    """A chunk of members that are equally far."""
    filled = indices + indices[-1:] * (size - len(indices))
    each = [group.numbers[i] for i in filled]
    numbers = {
        name: jnp.asarray([n[name] for n in each], np.uint32 if name == "seed" else float)
        for name in each[0]
    }
    keys = [member_key(key, members[i].settings) for i in filled]
    same = len({members[i].settings.get("seed") for i in filled}) == 1
    member_keys = keys[0] if same else jnp.stack(keys)
    first = tuple(members[i] for i in filled)
    best = [m.best for m in first if m.best is not None]
    chunk = _Chunk(
        group,
        indices,
        numbers,
        first,
        _first_state(group, first, member_keys, numbers),
        _stack([_Best(b.params, b.state, b.epoch, b.accuracy, b.loss) for b in best]),
        (),
        (),
        first[0].epochs,
    )
    return _look(chunk, dataset) if chunk.epoch == 0 and 0 in looks else chunk


def _first_state(
    group: _Group, members: Sequence[Member], keys: jax.Array, numbers: dict[str, jax.Array]
) -> TrainState:
    """The state of new members, or the states that unfinished members have."""
    states = [member.state for member in members if member.state is not None]
    if not states:
        count = np.arange(len(members))
        return _init(keys, numbers, count, plan=group.plan, in_shape=group.in_shape)
    run_key = jax.random.split(keys)[1] if keys.ndim == 0 else _run_keys(keys)
    params, state, opt_state = _stack([(s.params, s.state, s.opt_state) for s in states])
    return TrainState(params, state, opt_state, run_key, states[0].step, states[0].epoch)


def _advance(chunk: _Chunk, dataset: Dataset, looks: frozenset[int]) -> _Chunk:
    """The chunk after another epoch."""
    group = chunk.group
    x, y, preprocess = group.data
    state, losses = _epoch(
        chunk.state,
        chunk.numbers,
        x,
        y,
        preprocess,
        plan=group.plan,
        batch_size=group.batch_size,
    )
    chunk = chunk._replace(
        state=state,
        losses=(*chunk.losses, np.asarray(losses, np.float64)),
        epoch=chunk.epoch + 1,
    )
    return _look(chunk, dataset) if chunk.epoch in looks else chunk


def _look(chunk: _Chunk, dataset: Dataset) -> _Chunk:
    """The chunk with a row for this epoch, and the models that are the best so far."""
    train_loss, train_accuracy = _measure(chunk, *training_sample(dataset))
    val_loss = val_accuracy = np.full(len(train_loss), np.nan)
    best = chunk.best
    if len(dataset.x_val):
        val_loss, val_accuracy = _measure(chunk, dataset.x_val, dataset.y_val)
        params = _in_use(chunk.state, chunk.numbers, plan=chunk.group.plan)
        epoch = np.full(len(val_loss), chunk.epoch)
        best = _better(best, _Best(params, chunk.state.state, epoch, val_accuracy, val_loss))
    row = {
        "epoch": chunk.epoch,
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
    }
    return chunk._replace(best=best, rows=(*chunk.rows, row))


def _better(old: _Best | None, new: _Best) -> _Best:
    """For each member the better one, by validation accuracy; of equals, the least loss."""
    if old is None:
        return new
    more, equal = new.accuracy > old.accuracy, new.accuracy == old.accuracy
    which = more | (equal & (new.loss < old.loss))
    trees = _select(which, (new.params, new.state), (old.params, old.state))
    measured = zip(new[2:], old[2:], strict=True)
    return _Best(*trees, *(np.where(which, a, b) for a, b in measured))


def _measure(chunk: _Chunk, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss and the accuracy of each member."""
    total, right = np.zeros(()), np.zeros((), int)
    for b in slices(len(x), EVALUATION_BATCH):
        losses, counts = _sums(
            chunk.state,
            chunk.numbers,
            chunk.group.preprocess,
            x[b],
            y[b],
            plan=chunk.group.plan,
        )
        total, right = total + np.asarray(losses, np.float64), right + np.asarray(counts)
    return total / len(x), right / len(x)


def _with_chunk(members: Sequence[Member], chunk: _Chunk, epochs: int) -> tuple[Member, ...]:
    """The members with those of the chunk as they are now."""
    now = list(members)
    group = chunk.group
    params = _in_use(chunk.state, chunk.numbers, plan=group.plan)
    # Once for all members, then one after another without further copies.
    key, run = chunk.state.key, chunk.state
    trees = (run.params, run.state, run.opt_state), run.step, run.epoch, params, chunk.best
    states, step, epoch, params, best = jax.tree.map(np.asarray, trees)
    for place, i in enumerate(chunk.indices):
        own = chunk.before[place]

        def of(tree: Tree, place: int = place) -> Tree:
            return jax.tree.map(lambda leaf: leaf[place], tree)

        history = _extended(own.history, chunk, place)
        net, fitted = group.programs[i].net, group.preprocess
        model = Model(net, of(params), of(states[1]), fitted)
        best_model = None
        if best is not None:
            measured = int(best.epoch[place]), float(best.accuracy[place]), float(best.loss[place])
            best_model = BestModel(net, of(best.params), of(best.state), fitted, *measured)
        status, train_state = "unfinished", None
        if chunk.epoch == epochs:
            status = "finished" if np.isfinite(history.loss).all() else "diverged"
        else:
            own_key = key[place] if key.ndim else key
            params_now, state_now, opt_state = of(states)
            train_state = TrainState(params_now, state_now, opt_state, own_key, step, epoch)
        now[i] = Member(own.settings, status, chunk.epoch, model, best_model, history, train_state)
    return tuple(now)


def _extended(history: History, chunk: _Chunk, place: int) -> History:
    """The history of a member with what this chunk has added to it."""
    columns = {"loss": [losses[place] for losses in chunk.losses]}
    for name in History._fields[1:]:
        columns[name] = [
            np.atleast_1d(row[name] if name == "epoch" else row[name][place]) for row in chunk.rows
        ]
    return History(
        **{name: np.concatenate([getattr(history, name), *new]) for name, new in columns.items()}
    )


# The compiled programs.


def _axes(key: jax.Array) -> TrainState:
    """The axis of the members in each part of a TrainState: counts are common to all."""
    return TrainState(0, 0, 0, 0 if key.ndim else None, None, None)  # type: ignore[arg-type]


def _axes_in_step(state: TrainState, features: int) -> TrainState:
    """Those of each leaf within a step.

    Matrices [features, M], which inputs are multiplied by, are [features, members, M]: the product
    of inputs that all members share with those of all members is then one of two matrices.
    """

    def of_leaf(leaf: jax.Array) -> int:
        return 1 if leaf.ndim == 3 and leaf.shape[1] == features else 0

    return _with_trees(_axes(state.key), jax.tree.map(of_leaf, _trees(state)))


def _trees(state: TrainState) -> tuple[Tree, Tree, Tree]:
    """The parts of a state in which every leaf has an axis of members."""
    return state.params, state.state, state.opt_state


def _with_trees(state: TrainState, trees: tuple[Tree, Tree, Tree]) -> TrainState:
    params, layers, opt_state = trees
    return state._replace(params=params, state=layers, opt_state=opt_state)


def _parts(count: int) -> list[slice]:
    """The members whose steps are one operation each.

    On the CPU they are two halves, whose operations run beside each other: what is too small
    for all cores in one fills them together with what the other has to do.
    """
    if jax.default_backend() != "cpu" or count < HALVED:
        return [slice(0, count)]
    half = (count + 1) // 2
    return [slice(0, half), slice(half, count)]


@partial(jax.jit, static_argnames=("plan", "in_shape"))
def _init(
    keys: jax.Array,
    numbers: dict[str, jax.Array],
    count: np.ndarray,
    *,
    plan: _Plan,
    in_shape: tuple[int, ...],
) -> TrainState:
    def one(key: jax.Array, numbers: dict[str, jax.Array], _: Any) -> TrainState:
        program, _, _ = _make(plan, numbers)
        return init_train_state(program.net, program.optimizer, in_shape, key=key)

    key_axis = 0 if keys.ndim else None
    return jax.vmap(one, in_axes=(key_axis, 0, 0), out_axes=_axes(keys))(keys, numbers, count)


@partial(jax.jit, static_argnames=("plan", "batch_size"))
def _epoch(
    state: TrainState,
    numbers: dict[str, jax.Array],
    x: jax.Array,
    y: jax.Array,
    preprocess: Preprocess,
    *,
    plan: _Plan,
    batch_size: int,
) -> tuple[TrainState, jax.Array]:
    """An epoch of all members, and their losses [members, steps]."""
    shared = state.key.ndim == 0  # the batches
    orders = jax.vmap(epoch_order, in_axes=(0, None, None), out_axes=1)
    order = (epoch_order if shared else orders)(state.key, state.epoch, len(x))
    axes = _axes_in_step(state, jax.eval_shape(preprocess, x[:1]).size if shared else 0)

    def one(
        state: TrainState, numbers: dict[str, jax.Array], batch: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        program, values, _ = _make(plan, numbers)
        return run_step(program, values, preprocess, state, x[batch], y[batch])

    side_by_side = jax.vmap(one, in_axes=(axes, 0, None if shared else 1), out_axes=(axes, 0))

    def step(
        states: tuple[TrainState, ...], batch: jax.Array
    ) -> tuple[tuple[TrainState, ...], jax.Array]:
        done = [
            side_by_side(
                own, {k: v[part] for k, v in numbers.items()}, batch if shared else batch[:, part]
            )
            for own, part in zip(states, parts, strict=True)
        ]
        return tuple(own for own, _ in done), jnp.concatenate([loss for _, loss in done])

    def taken(part: slice) -> TrainState:
        """The state of some members, as it is in a step."""

        def of_leaf(leaf: jax.Array, axis: int) -> jax.Array:
            return jnp.moveaxis(leaf[part], 0, axis)

        own = _with_trees(state, jax.tree.map(of_leaf, _trees(state), _trees(axes)))
        return own if shared else own._replace(key=state.key[part])

    def put_together(axis: int, *leaves: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.moveaxis(leaf, axis, 0) for leaf in leaves])

    parts = _parts(len(jax.tree.leaves(_trees(state))[0]))
    states, losses = over_batches(step, tuple(map(taken, parts)), order, batch_size)
    trees = jax.tree.map(put_together, _trees(axes), *map(_trees, states))
    state = _with_trees(state, trees)._replace(step=states[0].step, epoch=state.epoch + 1)
    return state, losses.T


@partial(jax.jit, static_argnames=("plan",))
def _sums(
    state: TrainState,
    numbers: dict[str, jax.Array],
    preprocess: Preprocess,
    x: jax.Array,
    y: jax.Array,
    *,
    plan: _Plan,
) -> tuple[jax.Array, jax.Array]:
    """For each member the sum of the losses over a batch, and the number of right answers."""

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        program, _, _ = _make(plan, numbers)
        params = params_in_use(state, program=program)
        return sums(Model(program.net, params, state.state, preprocess), x, y, program.loss_fn)

    return jax.vmap(one, in_axes=(_axes(state.key), 0))(state, numbers)


@partial(jax.jit, static_argnames=("plan",))
def _in_use(state: TrainState, numbers: dict[str, jax.Array], *, plan: _Plan) -> Tree:
    """The parameters of all members that are to be evaluated and kept."""

    def one(state: TrainState, numbers: dict[str, jax.Array]) -> Tree:
        return params_in_use(state, program=_make(plan, numbers)[0])

    return jax.vmap(one, in_axes=(_axes(state.key), 0))(state, numbers)


@jax.jit
def _select(which: jax.Array, new: Tree, old: Tree) -> Tree:
    """For each member the new tree or the old one."""

    def of_leaf(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(of_leaf, new, old)


@jax.jit
def _run_keys(keys: jax.Array) -> jax.Array:
    """The keys of the runs of members, as `init_train_state` splits theirs."""
    return jax.vmap(lambda key: jax.random.split(key)[1])(keys)


def _stack(trees: Sequence[Tree]) -> Any:
    """Trees as one with an axis in front; None if there are none."""
    if not trees:
        return None
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


# Which members go on, and which is the best.


def _looks(epochs: int, eval_every: int | None, halve_at: Sequence[int]) -> frozenset[int]:
    """The epochs at which members are evaluated."""
    if eval_every is None:
        return frozenset()
    return frozenset({*range(0, epochs + 1, eval_every), *halve_at, epochs})


def _better_half(members: Sequence[Member], alive: Sequence[int], epoch: int) -> tuple[int, ...]:
    """The members that go on after an epoch; of equals, those that come first."""

    def merit(i: int) -> tuple[float, float]:
        """The best accuracy until then, and the least loss that goes with it."""
        history = members[i].history
        upto = history.epoch <= epoch
        pairs = zip(history.val_accuracy[upto], -history.val_loss[upto], strict=True)
        return max(pairs, default=(-math.inf, -math.inf))

    sound = [i for i in alive if not _diverged(members[i], epoch)]
    better = sorted(sound, key=merit, reverse=True)[: math.ceil(len(alive) / 2)]
    return tuple(sorted(better))


def _diverged(member: Member, epoch: int) -> bool:
    steps = len(member.history.loss) // max(member.epochs, 1) * epoch
    return not np.isfinite(member.history.loss[:steps]).all()


def _stopped(members: Sequence[Member], alive: Sequence[int]) -> tuple[Member, ...]:
    """The members with those that are not alive stopped."""
    now, left = list(members), set(alive)
    for i, member in enumerate(members):
        if i not in left and member.status == "unfinished":
            status = "diverged" if _diverged(member, member.epochs) else "stopped"
            now[i] = member._replace(status=status, state=None)
    return tuple(now)


def _done(members: Sequence[Member], chunk: _Chunk) -> int:
    """The epochs that all members have done, those of a chunk as many as it has."""
    more = sum(chunk.epoch - members[i].epochs for i in chunk.indices)
    return sum(member.epochs for member in members) + more


def _total(
    members: Sequence[Member],
    alive: Sequence[int],
    end: int,
    halve_at: Sequence[int],
    epochs: int,
) -> int:
    """The epochs of all members there will be, if none diverges from now on."""
    out = set(range(len(members))) - set(alive)
    total, left, begin = sum(members[i].epochs for i in out), len(alive), 0
    for bound in (*halve_at, epochs):
        if bound > end:
            left = math.ceil(left / 2)
        total += left * (bound - begin)
        begin = bound
    return total


def best_member(members: Sequence[Member], **settings: Any) -> tuple[int, BestModel | None]:
    """The best model of the members with these settings that did not diverge, and whose it is."""
    best, index = None, -1
    for i, member in enumerate(members):
        if any(member.settings[name] != value for name, value in settings.items()):
            continue
        own = member.best
        if own is None or member.status == "diverged":
            continue
        if best is None or (own.accuracy, -own.loss) > (best.accuracy, -best.loss):
            best, index = own, i
    return index, best


def _row(member: Member) -> dict[str, Any]:
    history, best = member.history, member.best
    measured = len(history.epoch) > 0
    values = {
        "val_accuracy": best.accuracy if best else None,
        "val_loss": best.loss if best else None,
        "best_epoch": best.epoch if best else None,
        "final_train_accuracy": float(history.train_accuracy[-1]) if measured else None,
        "final_val_accuracy": float(history.val_accuracy[-1]) if measured and best else None,
        "epochs": member.epochs,
        "status": member.status,
    }
    return {**member.settings, **values}


# Checks.


def _takes(function: Any, name: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _check_names(experiment: Experiment, settings: Mapping[str, Any]) -> None:
    """Raise unless the experiment takes these settings."""
    for name in settings:
        if name in (*RESULTS, "seeds", "diverged"):
            raise ValueError(f"a setting must not be named {name}, like a column of the results")
        if not isinstance(name, str):
            raise TypeError(f"the names of settings must be strings, got {name!r}")
    parameters = inspect.signature(experiment).parameters
    for name in settings:
        if name != "seed" and not _takes(experiment, name):
            raise ValueError(_check.unknown("setting of experiment", name, parameters))
    for name, parameter in parameters.items():
        variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if not variable and parameter.default is parameter.empty and name not in settings:
            raise ValueError(f"settings have no {name}, which experiment needs")


def _check_options(whose: str, options: Any) -> dict[str, Any]:
    """The options of `fit`, checked for their names; what `sweep` lacks is as in `fit`."""
    if not isinstance(options, Mapping):
        raise TypeError(f"the options of {whose} must be a dict, got {options!r}")
    for name in options:
        if name not in OPTIONS:
            raise ValueError(_check.unknown(f"option of {whose}", name, OPTIONS))
    options = dict(options)
    if whose == "sweep":  # options that are compiled into programs: numbers are Python's
        for name, value in options.items():
            if isinstance(value, (np.ndarray, np.generic, jax.Array)) and value.ndim == 0:
                options[name] = value.item()
    if isinstance(options.get("augment"), list):
        options["augment"] = tuple(options["augment"])
    return {**OPTIONS, **options} if whose == "sweep" else options


def _check_halving(
    halve_at: Any, epochs: int, eval_every: int | None, dataset: Dataset
) -> tuple[int, ...]:
    if isinstance(halve_at, str) or not isinstance(halve_at, Iterable):
        raise TypeError(f"halve_at must be a list of epochs, such as [5, 10], got {halve_at!r}")
    checked = tuple(
        _check.integer("every epoch of halve_at", epoch, at_least=1, at_most=epochs - 1)
        for epoch in halve_at
    )
    if any(a >= b for a, b in itertools.pairwise(checked)):
        raise ValueError(f"halve_at must rise, got {list(checked)}")
    if checked and (eval_every is None or not len(dataset.x_val)):
        raise ValueError("halve_at goes by validation accuracy: it needs eval_every and x_val")
    return checked


def _first_members(
    settings: Sequence[Settings],
    members: Sequence[Member] | None,
    epochs: int,
    halve_at: Sequence[int],
) -> tuple[Member, ...]:
    """The members before the sweep: as given, or not begun."""
    if members is None:
        return tuple(map(new_member, settings))
    if not all(isinstance(member, Member) for member in members):
        raise TypeError("members must be those of an interrupted sweep, such as result.members")
    if tuple(member.settings for member in members) != tuple(settings):
        raise ValueError("members are not those of a sweep of these settings")
    for i, member in enumerate(members):
        ends = (*halve_at, epochs) if member.state is None else range(epochs)
        if member.epochs and member.epochs not in ends:
            raise ValueError(
                f"members[{i}] is {member.status} after {member.epochs} epochs and cannot go on "
                f"in a sweep of {epochs}"
            )
    return tuple(
        member._replace(status="unfinished") if member.state is not None else member
        for member in members
    )
