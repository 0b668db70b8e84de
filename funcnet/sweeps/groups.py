"""Groups: the members of a sweep that one program trains, everything in them checked."""

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.datasets import Dataset
from funcnet.inputs import EVALUATION_BATCH, TrainingArrays, fit_preprocess, training_arrays
from funcnet.layer import Layer
from funcnet.preprocess import Preprocess
from funcnet.program import (
    Classes,
    Numbers,
    Program,
    as_numbers,
    as_program,
    check_batch_size,
    classes_of,
)
from funcnet.signature import defaults
from funcnet.step import TrainState, check_step, init_train_state
from funcnet.sweeps.search import Settings, describe, identity
from funcnet.sweeps.table import RESULTS
from funcnet.targets import Targets, fit_targets
from funcnet.train import FitOptions

Experiment = Callable[..., tuple[Any, ...]]
CPU_CACHE = 64 * 2**20  # bytes; on the CPU, members whose state is more are no faster together
COUNTS = "number of examples of each class"  # beside the settings of members that are numbers
# What `sweep` and the experiment may give, with defaults.
OPTIONS: dict[str, Any] = {**defaults(FitOptions), "batch_size": None}


class Call:
    """A call of `sweep` or `search`, and what was compiled, fitted and put on devices for it.

    Args:
      places: how many members there are at a time at most, if chunks of fewer are to have one of
        few sizes, so that later ones find their program compiled; None for no more than they need.
    """

    def __init__(self, places: int | None = None) -> None:
        self.compiled: dict[Any, Any] = {}
        self._places = places
        self._fitters: list[Any] = []
        self._made: dict[Any, Any] = {}

    def size(self, count: int) -> int:
        """How many places a chunk of so many members has: all, or half as many, again and again."""
        size = self._places or count
        while math.ceil(size / 2) >= count and size > 1:
            size = math.ceil(size / 2)
        return size

    def number_of(self, fitter: Any) -> int:
        """The number of a preprocessing to be fitted: the same of those that are alike."""
        for number, known in enumerate(self._fitters):
            if _alike(known, fitter):
                return number
        self._fitters.append(fitter)
        return len(self._fitters) - 1

    def once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What is made for a key, the first time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class Plan(NamedTuple):
    """What is compiled into the program of a group, but for the numbers of its members.

    Programs are not shared between calls of `sweep`: what the experiment reads besides its
    settings, such as a global of a notebook, may have changed.
    """

    call: Call
    experiment: Experiment
    fixed: tuple[tuple[str, str, Any], ...]  # name, type and value of structural settings
    options: tuple[tuple[str, Any], ...]  # those of `sweep`
    task: str  # of the dataset
    class_names: tuple[str, ...]  # of the dataset


class Made(NamedTuple):
    """What the experiment makes of the settings of a member, checked."""

    program: Program
    numbers: Numbers
    own: dict[str, Any]  # the options that it gives


class Group(NamedTuple):
    """Members that one program trains, and what they share.

    The members of each fold of a cross-validation are a group of their own, with the plan of the
    others: of equal shapes, they are trained by the same compiled program.
    """

    plan: Plan
    dataset: Dataset
    members: tuple[int, ...]
    programs: dict[int, Program]  # of each member
    numbers: dict[int, dict[str, Any]]  # of each member: its traced settings
    options: dict[int, Numbers]  # of each member: what the experiment makes of them
    state: TrainState  # its shapes, for each member
    preprocess: Preprocess
    targets: Targets
    in_shape: tuple[int, ...]
    data: TrainingArrays
    batch_size: int
    chunk_size: int
    devices: tuple[jax.Device, ...] = ()  # over which members are spread; none is one as ever
    copies: tuple[TrainingArrays, ...] = ()  # the data on each of them


def make_groups(
    experiment: Experiment,
    settings: Sequence[Settings],
    common: dict[str, Any],
    datasets: Sequence[Dataset],
    chunk_size: int | None,
    devices: tuple[jax.Device, ...] = (),
    call: Call | None = None,
) -> list[Group]:
    """The groups, everything in them checked.

    Args:
      experiment, settings: as for `sweep`.
      common: the options of `sweep`.
      datasets: the data, checked; of several, a setting called fold says which.
      chunk_size: as for `sweep`.
      devices: over which members are spread, several or none.
      call: what earlier groups of this experiment and these datasets were made for, if any.
    """
    takes_seed, call = "seed" in inspect.signature(experiment).parameters, call or Call()
    static = tuple((k, v) for k, v in common.items() if k not in ("preprocess", "batch_size"))
    task, names = datasets[0].task, datasets[0].class_names
    counts = [classes_of(dataset).counts for dataset in datasets]
    # For each plan and dataset the numbers of its members.
    numbers: dict[tuple[Plan, int], dict[int, dict[str, Any]]] = {}
    known: dict[Any, Made] = {}  # seeds share what was made
    made = []
    for i, member in enumerate(settings):
        given = {k: v for k, v in member.items() if k != "seed" or takes_seed}
        fold = given.pop("fold") if len(datasets) > 1 else 0
        traced = {k: v for k, v in given.items() if k == "seed" or isinstance(v, float)}
        fixed = identity({k: v for k, v in given.items() if k not in traced})
        plan = Plan(call, experiment, fixed, static, task, names)
        own, key = {**traced, COUNTS: counts[fold]}, (fold, identity(given))
        try:
            if key not in known:
                known[key] = make_program(plan, own)
        except (TypeError, ValueError) as error:
            where = f" (settings[{i}]: {describe(member)})" if len(settings) > 1 else ""
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{error}{where}") from None
        made.append(known[key])
        numbers.setdefault((plan, fold), {})[i] = own

    def fitted(fitter: Any, fold: int) -> tuple[int, Preprocess]:
        which = call.number_of(fitter)
        make = partial(fit_preprocess, fitter, datasets[fold].x_train)
        return which, call.once(("fitted", which, fold), make)

    def group(plan: Plan, fold: int, own: dict[int, dict[str, Any]]) -> Group:
        dataset = datasets[fold]
        members = [made[i] for i in own]
        first = members[0]
        options = {**common, **first.own}
        _check_traceable(plan, next(iter(own.values())))
        batch_size = _common_batch_size(members, options, dataset)
        which, preprocess = fitted(options["preprocess"], fold)  # last: it may take a minute
        in_shape = jax.eval_shape(preprocess, dataset.x_train[:1]).shape[1:]
        program = first.program
        targets = fit_targets(dataset, program.loss_fn)
        init = partial(init_train_state, program.net, program.optimizer, in_shape)
        state = jax.eval_shape(lambda key: init(key=key), jax.random.key(0))
        state = check_step(program, first.numbers, preprocess, state, dataset, targets, batch_size)
        # Members are evaluated on one device, which must hold them all.
        usual = _default_chunk_size(program.net, state, in_shape, batch_size)
        which_data = which, fold, targets, program.augment is not None
        make = partial(training_arrays, dataset, preprocess, targets, augments=which_data[-1])
        data = call.once(("data", *which_data), make)
        copies = call.once(
            ("copies", *which_data, *devices), lambda: tuple(data.on(each) for each in devices)
        )
        return Group(
            plan=plan,
            dataset=dataset,
            members=tuple(own),
            programs={i: made[i].program for i in own},
            numbers=own,
            options={i: made[i].numbers for i in own},
            state=state,
            preprocess=preprocess,
            targets=targets,
            in_shape=in_shape,
            data=data,
            batch_size=batch_size,
            chunk_size=chunk_size or usual,
            devices=devices,
            copies=copies,
        )

    return [group(plan, fold, own) for (plan, fold), own in numbers.items()]


def check_made(
    experiment: Experiment,
    settings: Sequence[Settings],
    common: Mapping[str, Any],
    dataset: Dataset,
) -> None:
    """Raise unless the experiment makes something sound of all these settings; nothing is trained.

    Raises:
      ValueError, TypeError: it says of which of them it does not.
    """
    takes_seed = "seed" in inspect.signature(experiment).parameters
    static = tuple((k, v) for k, v in common.items() if k not in ("preprocess", "batch_size"))
    counts = classes_of(dataset).counts
    for each in settings:
        given = {k: v for k, v in each.items() if k != "seed" or takes_seed}
        plan = Plan(Call(), experiment, identity(given), static, dataset.task, dataset.class_names)
        try:
            made = make_program(plan, {COUNTS: counts})
            _common_batch_size([made], {**common, **made.own}, dataset)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{error} ({describe(each)})") from None


def renumbered(group: Group, first: int) -> Group:
    """A group of members that are counted from a number."""

    def of(known: Mapping[int, Any]) -> dict[int, Any]:
        return {first + i: value for i, value in known.items()}

    return group._replace(
        members=tuple(first + i for i in group.members),
        programs=of(group.programs),
        numbers=of(group.numbers),
        options=of(group.options),
    )


def _common_batch_size(
    members: Sequence[Made], options: Mapping[str, Any], dataset: Dataset
) -> int:
    """The batch size of the members of a group, whose preprocessing must be one, too."""
    if options["batch_size"] is None:
        raise ValueError("batch_size is missing: give it to sweep, or have experiment do so")
    batch_size = check_batch_size(options["batch_size"], dataset)
    for member in members:
        if not _alike(member.own.get("preprocess"), members[0].own.get("preprocess")):
            raise ValueError(
                "preprocess must not depend on a float or on seed, which differ within a program: "
                "make it depend on a structural setting, such as a string"
            )
    return batch_size


def make_program(plan: Plan, numbers: Mapping[str, Any]) -> Made:
    """What the experiment makes of the settings of a member, whose numbers may be traced."""
    classes = Classes(plan.class_names, numbers[COUNTS])
    settings = {**{name: value for name, _, value in plan.fixed}, **numbers}
    del settings[COUNTS]
    made = plan.experiment(**settings)
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise TypeError(
            "experiment must return (net, optimizer) or (net, optimizer, options), "
            f"got {type(made).__name__}"
        )
    net, optimizer, own = (*made, {})[:3]
    own = check_options("experiment", own)
    options = {**dict(plan.options), **own}
    weight = options["class_weight"]
    if isinstance(weight, tuple) and weight and isinstance(weight[0], tuple):
        options["class_weight"] = dict(weight)
    program = as_program(net, optimizer, options, plan.task)
    return Made(program, as_numbers(options, classes), own)


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


def _check_traceable(plan: Plan, numbers: Mapping[str, Any]) -> None:
    """Raise if the experiment looks at numbers that are traced."""

    def make(numbers: Mapping[str, Any]) -> None:
        make_program(plan, numbers)

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


def _takes(function: Any, name: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def check_names(experiment: Experiment, settings: Mapping[str, Any]) -> None:
    """Raise unless the experiment takes these settings."""
    for name in settings:
        if name in (*RESULTS, "seeds", "diverged"):
            raise ValueError(f"a setting must not be named {name}, like a column of the results")
        if not isinstance(name, str):
            raise TypeError(f"the names of settings must be strings, got {name!r}")
    parameters = inspect.signature(experiment).parameters
    for name in settings:
        if name != "seed" and not _takes(experiment, name):
            raise ValueError(checks.unknown("setting of experiment", name, parameters))
    for name, parameter in parameters.items():
        variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if not variable and parameter.default is parameter.empty and name not in settings:
            raise ValueError(f"settings have no {name}, which experiment needs")


def check_options(whose: str, options: Any) -> dict[str, Any]:
    """The options of `fit`, checked for their names; what `sweep` lacks is as in `fit`."""
    if not isinstance(options, Mapping):
        raise TypeError(f"the options of {whose} must be a dict, got {options!r}")
    for name in options:
        if name == "metrics":
            raise ValueError(
                "metrics is an option of fit alone: members are measured by accuracy and loss; "
                "for others use predict_scores of their models"
            )
        if name not in OPTIONS:
            raise ValueError(checks.unknown(f"option of {whose}", name, OPTIONS))
    options = dict(options)
    if whose == "sweep":  # options that are compiled into programs: numbers are Python's
        for name, value in options.items():
            if isinstance(value, (np.ndarray, np.generic, jax.Array)) and value.ndim == 0:
                options[name] = value.item()
    if isinstance(options.get("augment"), list):
        options["augment"] = tuple(options["augment"])
    weight = options.get("class_weight")
    if whose == "sweep" and isinstance(weight, Mapping):
        options["class_weight"] = tuple(weight.items())
    elif whose == "sweep" and weight is not None and not isinstance(weight, str):
        options["class_weight"] = tuple(np.asarray(weight).tolist())
    return {**OPTIONS, **options} if whose == "sweep" else options
