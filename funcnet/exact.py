"""Training in shards, to the same bits on any number of devices.

Each batch is cut in the same shards whatever there is to compute them, and a step is split where it
sums over the batch, see `funcnet.shards`. What is between two sums is a program of one shard, for
one device, or for those among which the weights are divided: a device that has several shards runs
it for one after another. As it is the same program everywhere, so are its results. (One that had
several devices would be optimized in other ways than one of a single device.) What is summed is
added along one binary tree over all shards, ((0 + 1) + (2 + 3)) + ..., of which a device adds its
own part, and then pairs of devices do: sums alone, which no compiler rounds otherwise.

On a CPU XLA divides some products and sums among the threads that there are, and so rounds by their
number: bits are the same where devices have equally many. `PJRT_NPROC=1` in the environment, as the
command line sets it, makes it one.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jax.sharding import PartitionSpec

from funcnet.epochs import Epochs, Reached
from funcnet.feed import Feed, ShardStretch
from funcnet.optimizer import moved_by
from funcnet.parallel import DATA, MODEL, Spread
from funcnet.preprocess import Preprocess
from funcnet.program import Numbers, Program
from funcnet.shards import Split, split
from funcnet.step import Given, Held, TrainState, gradients, updated
from funcnet.tree import Tree

Joins = tuple[Callable[..., Any], ...]
AHEAD = 8  # steps that are begun before the first of them must be done


def epochs_of(feed: Feed, program: Program, held: Held) -> "Epochs | ExactEpochs":
    """The epochs of a run, on one device or several."""
    spread = program.spread
    if spread is None or spread.shards is None:
        return Epochs(feed, program=program, held=held)
    return ExactEpochs(feed, program=program)


class Copies(NamedTuple):
    """The state of a run, on the devices of each row of the mesh that this process has."""

    rows: tuple[Held, ...]

    @property
    def step(self) -> jax.Array:
        """The number of updates done."""
        return self.rows[0].step


class ExactEpochs:
    """The epochs of a run in shards; arguments and methods are those of `Epochs`."""

    def __init__(self, feed: Feed, *, program: Program) -> None:
        assert program.spread is not None
        assert program.spread.shards is not None
        self.program, self.in_place, self.feed = program, False, feed
        self._spread = program.spread
        self._numbers = [
            [program.spread.on_row(np.int32(shard), row) for shard in range(program.spread.shards)]
            for row in program.spread.rows
        ]

    def begin(self, held: Held) -> Copies:
        """What is held, on all devices."""
        return self._placed([held] * len(self._spread.rows))

    def _placed(self, rows: Sequence[Held]) -> Copies:
        place = self._spread.placed_on_row
        return Copies(tuple(map(place, rows, self._spread.rows)))

    def train(self, held: Copies, epoch: int, done: int = 0) -> Generator[Reached]:
        """What is left of an epoch, counted from 0, after so many batches, in stretches."""
        for stretch in self.feed.shards(epoch, done):
            losses: list[jax.Array] = []
            for _, after, loss in self._steps(held, stretch):
                held = after
                losses.append(loss)
                if len(losses) > AHEAD:
                    losses[-1 - AHEAD].block_until_ready()
            found = np.array([float(loss) for loss in losses])
            yield Reached(held, found, stretch.end, stretch.mark)

    def each_step(
        self, held: Copies, epoch: int, done: int = 0
    ) -> Iterator[tuple[Any, Copies, float]]:
        """The same one step at a time, by the same programs: (batch, held, loss) of each."""
        for stretch in self.feed.shards(epoch, done):
            for batch, after, loss in self._steps(held, stretch):
                held = after
                yield (stretch, batch), after, float(loss)

    def parts(self, held: Copies, batch: tuple[Any, Any]) -> tuple[jax.Array, Tree, Tree]:
        """The loss, the gradients and the updates of a step."""
        loss, grads, _ = self._gradients(held, *batch)[0]
        own = held.rows[0]
        updates, _ = moved_by(self.program.optimizer, grads, own.opt_state, own.params)
        return loss, grads, updates

    def _steps(
        self, held: Copies, stretch: ShardStretch
    ) -> Iterator[tuple[list[list[np.ndarray]], Copies, jax.Array]]:
        for batch in stretch.batches:
            found = self._gradients(held, stretch, batch)
            update = partial(_updated, self.program)
            pairs = [update(own, *f) for own, f in zip(held.rows, found, strict=True)]
            rows_now = [own for own, _ in pairs]
            held = self._placed(rows_now) if self._spread.model > 1 else Copies(tuple(rows_now))
            yield batch, held, pairs[0][1]

    def _gradients(
        self, held: Copies, stretch: ShardStretch, batch: list[list[np.ndarray]]
    ) -> list[Any]:
        """The loss of a batch, its gradients and the state after it, on each row."""
        spread = self._spread
        shards = spread.cut(stretch.size)
        holders = spread.holders(shards)
        each, wholes, own = shards // holders, [], []
        every = zip(spread.rows, held.rows, stretch.given, self._numbers, batch, strict=True)
        for row, state, given, numbers, cut in every:
            wholes.append((_state_of(state, given.key), given))
            first = row * each if holders > 1 else 0
            parts = spread.on_row(cut, row)
            own.append(list(zip(parts, numbers[first : first + each], strict=True)))
        function = _split_step(self.program, shards, _Shapes((wholes[0], batch[0][0])))
        return in_order(function, wholes, own, spread if holders > 1 else None)


_updated = jax.jit(updated, static_argnums=0)


def check_shards(
    program: Program,
    numbers: Numbers,
    preprocess: Preprocess,
    train_state: TrainState,
    examples: tuple[Any, Any, Any],
    sizes: Iterable[int],
) -> None:
    """Trace the step of a shard, so that what cannot be split is known before the run begins.

    Args:
      program, numbers, preprocess: as for a step.
      train_state: the state of the run.
      examples: some, as a step takes them: x, y and weights, or None.
      sizes: how many examples batches have.
    Raises:
      ValueError: what.
    """
    spread = program.spread
    if spread is None or spread.shards is None:
        return
    if numbers.mixup_alpha is not None and max(sizes) == spread.shards:
        raise ValueError(
            f"batch_size is {max(sizes)} in as many shards: there are no pairs for mixup in them"
        )
    given = Given(train_state.key, *examples, preprocess, numbers)
    given = jax.tree.map(jnp.asarray, given)
    state = jax.tree.map(jnp.asarray, train_state)
    for count in set(sizes):
        shards = spread.cut(count)
        rows = np.zeros(count // shards, np.int32)
        _split_step(program, shards, _Shapes(((state, given), rows)))


def _state_of(held: Held, key: jax.Array) -> TrainState:
    params, state, opt_state, count = held
    return TrainState(params, state, opt_state, key, count, count)


class _Shapes:
    """A tree of arrays, of which those of equal shapes are equal, and hash alike."""

    def __init__(self, tree: Any) -> None:
        self.tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        leaves, structure = jax.tree.flatten(self.tree)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        precision = getattr(jax.config, "jax_default_matmul_precision", None)
        self._key = shapes, structure, jax.dtypes.canonicalize_dtype(float), precision

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shapes) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=32)
def _split_step(program: Program, shards: int, shapes: _Shapes) -> Split:
    """The gradients of a step, in compiled stages."""

    def of_shard(whole: tuple[TrainState, Given], rows: jax.Array) -> Any:
        train_state, given = whole
        examples = given.batch(rows)
        return gradients(program, given.numbers, given.preprocess, train_state, *examples)

    made = split(of_shard, shapes.tree[0], shapes.tree[1], shards)
    stages = [
        stage._replace(
            of_all=stage.of_all and jax.jit(stage.of_all),
            of_shard=stage.of_shard and jax.jit(stage.of_shard),
        )
        for stage in made.stages
    ]
    return made._replace(stages=stages)


def in_order(
    function: Split,
    wholes: Sequence[Any],
    shards: Sequence[Sequence[tuple[jax.Array, jax.Array]]],
    across: Spread | None,
) -> list[Any]:
    """What a function of all shards gives, on each row of devices.

    Args:
      function: the function.
      wholes: for each row what is the same for all shards.
      shards: for each row its shards, on its devices: what is of them alone, and their number.
      across: how rows are spread, if each has shards of its own.
    """
    known: list[dict[Any, Any]] = [
        {**function.consts, **dict(zip(function.whole, jax.tree.leaves(whole), strict=True))}
        for whole in wholes
    ]
    (examples,) = function.shard
    stacks: list[list[dict[Any, Any]]] = [
        [{examples: own, **dict.fromkeys(function.number, number)} for own, number in of_row]
        for of_row in shards
    ]
    for stage in function.stages:
        totals = []
        for values, of_each in zip(known, stacks, strict=True):
            if stage.of_all is not None:
                found = stage.of_all(*(values[v] for v in stage.all_needs))
                values.update(zip(stage.all_made, found, strict=True))
            if stage.of_shard is None:
                continue
            terms = []
            for shard in of_each:
                inputs = (values[v] if v in values else shard[v] for v in stage.needs)
                found = stage.of_shard(*inputs)
                shard.update(zip(stage.kept, found, strict=False))
                terms.append(found[len(stage.kept) :])
            joins = tuple(stage.joins)
            totals.append(_added(terms, joins, packs=across.data if across else 1))
        if stage.sums:
            if across is not None:
                totals = _across(totals, joins, _Shapes(terms[0]), across)
            for values, total in zip(known, totals, strict=True):
                values.update(zip(stage.sums, total, strict=True))
    return [
        jax.tree.unflatten(
            function.structure,
            [values[v] if isinstance(v, Var) else v.val for v in function.outputs],
        )
        for values in known
    ]


@partial(jax.jit, static_argnames=("joins", "packs"))
def _added(terms: list[list[Any]], joins: Joins, *, packs: int) -> list[Any]:
    """Terms of 1, 2, 4, ... shards, joined in pairs, and pairs of pairs.

    To be joined over so many devices, those of a kind are put in one array [1, N].
    """
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=True)
        terms = [[join(*two) for join, *two in zip(joins, *pair, strict=True)] for pair in pairs]
    if packs == 1:
        return terms[0]
    packed = []
    for of_kind in _kinds(terms[0], joins).values():
        flat = jnp.concatenate([terms[0][place].reshape(-1) for place in of_kind])
        packed.append(jnp.pad(flat, (0, -flat.size % packs))[None])
    return packed


@partial(jax.jit, static_argnames=("joins", "shapes"))
def _unpacked(packed: list[jax.Array], joins: Joins, shapes: "_Shapes") -> list[jax.Array]:
    """The arrays that were put in one of each kind."""
    found = list(shapes.tree)
    for flat, of_kind in zip(packed, _kinds(shapes.tree, joins).values(), strict=True):
        first = 0
        for place in of_kind:
            shape, size = shapes.tree[place].shape, shapes.tree[place].size
            found[place] = flat[first : first + size].reshape(shape)
            first += size
    return found


def _kinds(terms: Sequence[Any], joins: Joins) -> dict[Any, list[int]]:
    """The places of those that are joined in one way and have one dtype."""
    kinds: dict[Any, list[int]] = {}
    for place, (term, join) in enumerate(zip(terms, joins, strict=True)):
        kinds.setdefault((join, term.dtype), []).append(place)
    return kinds


def _across(
    totals: list[list[Any]], joins: Joins, shapes: "_Shapes", spread: Spread
) -> list[list[Any]]:
    """What each row has packed, joined with that of all others, unpacked."""
    if len(spread.rows) > 1 and spread.mesh.devices.flat[0].platform == "cpu":
        # Devices of a CPU wait for each other in threads, of which there is one for each: while
        # one of these does something else, all of them may wait for ever.
        jax.block_until_ready(totals)
    kinds = tuple(join for join, _ in _kinds(shapes.tree, joins))
    together = [spread.stacked(own) for own in zip(*totals, strict=True)]
    found = _exchange(together, joins=kinds, spread=spread)
    rows = zip(*map(spread.unstacked, found), strict=True)
    return [_unpacked(list(own), joins, shapes) for own in rows]


@partial(jax.jit, static_argnames=("joins", "spread"))
def _exchange(totals: list[jax.Array], *, joins: Joins, spread: Spread) -> list[jax.Array]:
    """Arrays [rows, N], joined in pairs of rows, and pairs of pairs: [N], on all devices.

    Each row gives its partner one half of what it has, and joins the other, until it has all of a
    Dth; then all are put together. So each sends twice N numbers, however many rows there are.
    """
    count = spread.data

    def on_device(total: jax.Array, join: Callable[..., jax.Array]) -> jax.Array:
        own, step, row = total[0], 1, jax.lax.axis_index(DATA)
        while step < count:
            halves, side = own.reshape(2, -1), row // step % 2
            pairs = [(device, device ^ step) for device in range(count)]
            others = jax.lax.ppermute(halves[1 - side], DATA, pairs)
            own, step = join(halves[side], others), 2 * step
        bits = count.bit_length() - 1
        place = [int(f"{device:0{bits}b}"[::-1], 2) for device in range(count)]
        return jax.lax.all_gather(own, DATA)[np.array(place)].reshape(-1)

    run = jax.shard_map(
        lambda totals: list(map(on_device, totals, joins)),
        mesh=spread.mesh,
        in_specs=PartitionSpec(DATA),
        out_specs=PartitionSpec(),
        axis_names={DATA, MODEL},
        check_vma=False,
    )
    return run(totals)
