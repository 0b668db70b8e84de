"""Several devices: which there are to be, where the arrays of a run lie, and how batches are cut.

The first axis of a mesh is for examples, each device having its part of every batch; the second,
if there is one, for the outputs of affine layers, each device having some columns of the weights.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from funcnet import checks
from funcnet.tree import path_name

__all__ = ["device_mesh"]

DATA, MODEL = "data", "model"
DEVICES = checks.COUNT
MODEL_PARALLEL = checks.COUNT
REPRODUCIBLE = checks.COUNT  # a power of two


def device_mesh(devices: int | None = None, *, model_parallel: int = 1) -> Mesh:
    """Devices for `fit` and sweeps, in a grid: parts of a batch, and parts of the weights.

    Args:
      devices: how many, the first ones that JAX has; None is all of them.
      model_parallel: over how many of them each weight of an affine layer is spread, by columns.
    Returns:
      A `jax.sharding.Mesh` [devices / model_parallel, model_parallel] with axes "data" and "model".
    Raises:
      ValueError: there are not so many devices, or they cannot be divided so.
      TypeError: a count is no integer.
    Example:
      >>> mesh = fn.device_mesh(1)
      >>> dict(mesh.shape)
      {'data': 1, 'model': 1}
    """
    there = jax.devices()
    count = len(there) if devices is None else DEVICES.check("devices", devices)
    columns = MODEL_PARALLEL.check("model_parallel", model_parallel)
    if count > len(there):
        raise ValueError(
            f"devices is {count}, but JAX has {checks.plural(len(there), 'device')}: "
            f"{there[0].platform}{_more(there[0].platform)}"
        )
    if count % columns:
        raise ValueError(f"model_parallel is {columns}, which does not divide {count} devices")
    return _mesh(there[:count], columns)


def _mesh(devices: Any, columns: int) -> Mesh:
    grid = np.array(devices).reshape(-1, columns)
    return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)


def _more(platform: str) -> str:
    return " (JAX_NUM_CPU_DEVICES makes more of the cores)" if platform == "cpu" else ""


class Spread(NamedTuple):
    """How a run is spread over devices; it is hashable, a part of the program.

    Attributes:
      mesh: the devices, with axes DATA and MODEL.
      shards: in how many shards each batch is cut, whatever the devices, for the same bits on any
        number of them; None leaves it to the compiler.
    """

    mesh: Mesh
    shards: int | None

    @property
    def data(self) -> int:
        """Over how many devices a batch is spread."""
        return self.mesh.shape[DATA]

    @property
    def model(self) -> int:
        """Over how many devices the columns of weights are spread."""
        return self.mesh.shape[MODEL]

    @property
    def processes(self) -> int:
        """How many processes have devices of it."""
        return len(processes_of(self.mesh))

    def cut(self, count: int) -> int:
        """In how many shards a batch of so many examples is cut: a short one may allow fewer."""
        return math.gcd(count, self.shards or 1)

    def holders(self, shards: int) -> int:
        """Over how many rows so many shards are spread: all, or each has all of them."""
        return self.data if shards % self.data == 0 else 1

    @property
    def rows(self) -> list[int]:
        """The numbers of the rows of the mesh whose devices are of this process."""
        own = jax.process_index()
        return [n for n, row in enumerate(self.mesh.devices) if row[0].process_index == own]

    def columns(self, count: int) -> list[slice]:
        """Which examples of a batch of so many this process computes, a slice for each row."""
        if self.holders(self.cut(count)) == 1 if self.shards else count % self.data:
            return [slice(0, count)]
        own = count // self.data
        return [slice(row * own, (row + 1) * own) for row in self.rows]

    def in_columns(self, array: np.ndarray, *, count: int) -> jax.Array:
        """Batches of so many examples on the devices, of which this process has its `columns`.

        Args:
          array: [batches, N, ...]; N is count where batches cannot be divided.
          count: how many examples a batch has over all processes.
        """
        if count % self.data:
            return _put(array, self._at())
        shape = (len(array), count, *array.shape[2:])
        each = np.split(array, len(self.rows), axis=1)
        parts = [
            jax.device_put(part, device)
            for row, part in zip(self.rows, each, strict=True)
            for device in self.mesh.devices[row]
        ]
        return jax.make_array_from_single_device_arrays(shape, self._at(None, DATA), parts)

    def on_row(self, tree: Any, row: int) -> Any:
        """A tree of arrays on each device of a row."""
        return jax.device_put(tree, self._row(row))

    def placed_on_row(self, tree: Any, row: int) -> Any:
        """A tree of arrays on the devices of a row: weights by columns, all else on each."""
        if self.model == 1:
            return self.on_row(tree, row)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(leaf, self._row(row, *self._columns(path, leaf))),
            tree,
        )

    def stacked(self, totals: Sequence[jax.Array]) -> jax.Array:
        """Arrays [1, ...] of this process's rows as one [rows, ...] of all of them."""
        shape = (self.data, *totals[0].shape[1:])
        parts = [part for own in totals for part in _on_each(own, self.model)]
        return jax.make_array_from_single_device_arrays(shape, self._at(DATA), parts)

    def unstacked(self, array: jax.Array) -> list[jax.Array]:
        """An array that all devices have, on those of each of this process's rows."""
        parts = {shard.device: shard.data for shard in array.addressable_shards}
        rows = [[parts[device] for device in self.mesh.devices[row]] for row in self.rows]
        if self.model == 1:
            return [part for (part,) in rows]
        together = jax.make_array_from_single_device_arrays
        places = map(self._row, self.rows)
        return [together(array.shape, place, own) for place, own in zip(places, rows, strict=True)]

    def _row(self, row: int, *axes: str | None) -> Any:
        devices = self.mesh.devices[row]
        if self.model == 1:
            return SingleDeviceSharding(devices[0])
        return NamedSharding(
            Mesh(devices, (MODEL,), axis_types=(AxisType.Auto,)), PartitionSpec(*axes)
        )

    def rows_apart(self, array: jax.Array) -> jax.Array:
        """An array [N, ...] in a compiled program, spread by its rows if they can be divided."""
        if len(array) % self.data:
            return array
        return jax.lax.with_sharding_constraint(array, self._at(DATA))

    def kept(self, tree: Any) -> Any:
        """Parameters and what follows them, in a compiled program: where `placed` has them."""
        if self.model == 1:
            return tree
        keep = jax.lax.with_sharding_constraint
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: keep(leaf, self._place(path, leaf)), tree
        )

    def placed(self, tree: Any) -> Any:
        """A tree of arrays on the devices: matrices of weights by columns, all else on each."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: _put(leaf, self._place(path, leaf)), tree
        )

    def on_each(self, tree: Any) -> Any:
        """A tree of arrays on every device."""
        return jax.tree.map(lambda leaf: _put(leaf, self._at()), tree)

    def splits(self, tree: Any) -> bool:
        """Whether there is something that is spread by its columns."""
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return any(self._place(*leaf) != self._at() for leaf in leaves)

    def _place(self, path: Any, leaf: Any) -> NamedSharding:
        return self._at(*self._columns(path, leaf))

    def _columns(self, path: Any, leaf: Any) -> tuple[str | None, ...]:
        """By which axes of the mesh a leaf is spread."""
        shape = np.shape(leaf)
        is_weight = len(shape) == 2 and path and path_name(path[-1:]) == "w"
        divides = self.model > 1 and is_weight and shape[1] % self.model == 0
        return (None, MODEL) if divides else ()

    def _at(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process has, on the devices of all of them."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _on_each(array: jax.Array, devices: int) -> list[jax.Array]:
    """An array of a row, whole, on each device of it."""
    if devices > 1 and not array.is_fully_replicated:
        sharding: Any = array.sharding
        array = jax.device_put(array, NamedSharding(sharding.mesh, PartitionSpec()))
    return [shard.data for shard in array.addressable_shards]


def local(tree: Any) -> Any:
    """A tree of arrays on several devices, or copies of it, as one on a device of this process."""
    if hasattr(tree, "rows"):  # copies
        tree = tree.rows[0]
    return jax.tree.map(_local, tree)


def _local(leaf: Any) -> Any:
    if not (isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding)):
        return leaf
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    whole = np.empty(leaf.shape, leaf.dtype)  # each process has all columns
    for shard in leaf.addressable_shards:
        whole[shard.index] = shard.data
    return jnp.asarray(whole)


def processes_of(mesh: Any) -> set[int]:
    """The processes that have devices of a mesh; None is this one alone."""
    if not isinstance(mesh, Mesh):
        return {jax.process_index()}
    return {device.process_index for device in mesh.devices.flat}


def as_spread(mesh: Any, reproducible: Any, batch_size: int) -> Spread | None:
    """How `fit` is to be spread, checked; None is on one device as ever.

    Args:
      mesh, reproducible, batch_size: those of `fit`.
    """
    if mesh is None and reproducible is None:
        return None
    mesh = _mesh(jax.local_devices()[:1], 1) if mesh is None else as_mesh(mesh)
    data, own = mesh.shape[DATA], jax.process_index()
    owners = processes_of(mesh)
    if owners != {own} and owners != set(range(jax.process_count())):
        raise ValueError(
            f"mesh has devices of processes {sorted(owners)}, of {jax.process_count()} that there "
            "are: it must have some of each, or of this one alone"
        )
    if any(len({device.process_index for device in row}) > 1 for row in mesh.devices):
        raise ValueError("the devices that divide the weights must be of one process")
    if reproducible is not None:
        shards = REPRODUCIBLE.check("reproducible", reproducible)
        if shards & (shards - 1):
            raise ValueError(f"reproducible must be a power of two, 1, 2, 4, ..., got {shards}")
        if shards % data:
            raise ValueError(
                f"reproducible is {shards}: so many shards cannot be divided among {data} devices"
            )
        if batch_size % shards:
            raise ValueError(
                f"batch_size is {batch_size}, which cannot be cut in {shards} equal shards, as "
                f"reproducible wants it: choose a multiple of {shards}"
            )
        return Spread(mesh, shards)
    if batch_size % data:
        raise ValueError(
            f"batch_size is {batch_size}, which cannot be divided among {data} devices: choose a "
            f"multiple of {data}"
        )
    return Spread(mesh, None)


def as_mesh(mesh: Any) -> Mesh:
    """A mesh as it is used: its axes are called DATA and MODEL, and left to the compiler.

    Raises:
      TypeError, ValueError: it is none, or has more than two axes.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, as device_mesh() is, got {mesh!r}")
    grid = mesh.devices
    if grid.ndim not in (1, 2):
        raise ValueError(
            "mesh must have one axis, of examples, or two, of examples and of columns of weights, "
            f"got {grid.ndim}: {mesh.axis_names}"
        )
    if tuple(mesh.axis_names) == (MODEL, DATA):
        raise ValueError("the first axis of mesh is for examples: it is called model, and not data")
    return _mesh(grid.flat, grid.size // len(grid))


def bits_of(spread: Spread | None) -> dict[str, int | None]:
    """What of it the bits of a run in shards go by; of any other run more than that."""
    if spread is None or spread.shards is None:
        return {"reproducible": None, "model_parallel": None}
    return {"reproducible": spread.shards, "model_parallel": spread.model}


def devices_of(mesh: Any) -> tuple[jax.Device, ...]:
    """The devices over which the members of a sweep are spread; none for one as ever.

    Raises:
      TypeError, ValueError: it is no mesh of devices of this process, or one of columns.
    """
    if mesh is None:
        return ()
    mesh = as_mesh(mesh)
    if mesh.shape[MODEL] > 1:
        raise ValueError("a sweep spreads its members over devices, not the weights of each")
    devices = tuple(mesh.devices.flat)
    if any(device.process_index != jax.process_index() for device in devices):
        raise ValueError("a sweep is for the devices of one process: jax.local_devices()")
    return () if devices == (jax.local_devices()[0],) else devices


def check_split(spread: Spread | None, params: Any) -> None:
    """Raise if weights are to be spread by columns, and none can be."""
    if spread is not None and spread.model > 1 and not spread.splits(params):
        raise ValueError(
            f"no affine layer has a number of outputs that {spread.model} divides: over so many "
            "devices no weights can be spread (those of members are not)"
        )
