"""Checks of hand-written gradients, against autodiff and against numerical differentiation.

Whole leaves are compared, element by element, in float64: a check along a random
direction in float32 misses a wrong element among many.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks
from funcnet.layer import Layer
from funcnet.layers import promote
from funcnet.losses import softmax_loss
from funcnet.objective import as_input, loss, loss_and_grads, loss_of_scores
from funcnet.text import aligned
from funcnet.tree import LossFn, Tree, named_leaves, structure_of

__all__ = [
    "GradientCheck",
    "check_gradients",
    "numerical_gradient",
    "relative_error",
    "scaled_error",
]

_LANES = 2**22  # elements of perturbed copies held at once, about 32 MB in float64


class Discrepancy(float):
    """The largest error between two trees, a float that knows where it is.

    Attributes:
      leaf: the path of the leaf that holds it, such as "affine1/w" ("" for a bare array).
      index: its index in this leaf.
      leaves: the largest error of every leaf, a dict by path of Discrepancies.
    """

    leaf: str
    index: tuple[int, ...]
    leaves: "dict[str, Discrepancy]"

    def __new__(
        cls,
        value: float,
        leaf: str = "",
        index: tuple[int, ...] = (),
        leaves: "dict[str, Discrepancy] | None" = None,
    ) -> "Discrepancy":
        """A float with a place."""
        self = super().__new__(cls, value)
        self.leaf, self.index, self.leaves = leaf, index, leaves or {}
        return self


def relative_error(a: Tree, b: Tree) -> Discrepancy:
    """The largest relative error of two arrays or trees, by CS231n's formula.

    max over the elements of |a - b| / max(1e-8, |a| + |b|). It divides tiny by tiny
    where both gradients are all but 0; see `scaled_error` for a measure that does not.

    Args:
      a: an array or a tree of arrays.
      b: the same, with the same key paths (dict or FrozenDict) and shapes.
    Returns:
      The error as a float, with the place of the worst element and the error of each
      leaf as attributes; NaN if there is one in a or b.
    Raises:
      ValueError: paths or shapes differ.
      TypeError: arrays are complex.
    Example:
      >>> error = fn.relative_error({"w": np.array([1.0, 3.0])}, {"w": np.array([1.0, 1.0])})
      >>> error, error.leaf, error.index
      (0.5, 'w', (1,))
    """
    pairs = _pairs(a, b)
    return _worst(
        {
            name: np.abs(p - q) / np.maximum(1e-8, np.abs(p) + np.abs(q))
            for name, (p, q) in pairs.items()
        }
    )


def scaled_error(a: Tree, b: Tree) -> Discrepancy:
    """The smallest `tol` to which two gradients agree, by the measure of their own size.

    Two gradients agree to `tol` when, leaf by leaf, |a - b| <= tol * scale, where scale
    is the largest element of the leaf, or 1e-3 of the largest of the tree if this is more.

    Args:
      a: an array or a tree of arrays.
      b: the same, with the same key paths (dict or FrozenDict) and shapes.
    Returns:
      The error as a float, with the place of the worst element and the error of each leaf as
      attributes, as of `relative_error`; NaN if there is one in a or b.
    Raises:
      ValueError: paths or shapes differ.
      TypeError: arrays are complex.
    Example:
      >>> print(fn.scaled_error(np.array([8.0, 0.0]), np.array([8.0, 1.0])))
      0.125
    """
    pairs = _pairs(a, b)
    scales = _scales(pairs)
    return _worst({name: _over(np.abs(p - q), scales[name]) for name, (p, q) in pairs.items()})


def numerical_gradient(
    f: Callable[[Tree], Any], x: Tree, dout: Any = None, h: float = 1e-5
) -> Tree:
    """The gradient of a function by central differences, (f(x + h) - f(x - h)) / 2h.

    Every element of every leaf is moved by itself; many of them at once, by `jax.vmap`.

    Args:
      f: a function of a tree of arrays, written in JAX; its value is a scalar, or an
        array or tree of arrays if `dout` is given.
      x: where to differentiate: a tree of float64 arrays.
      dout: the gradient of the loss with respect to f(x), of the shape of f(x).
      h: the step. Central differences leave an error of about h**2 from truncation and
        eps / h from rounding.
    Returns:
      The gradient, in the tree structure of x.
    Raises:
      TypeError: a leaf is not floating point, or f is not a scalar and dout is None.
      ValueError: x is float32 or narrower and h too small for it (rounding would leave
        hardly a digit), or dout does not fit.
    Example:
      >>> with jax.enable_x64(True):
      ...     gradient = fn.numerical_gradient(lambda x: (x**2).sum(), jnp.array([1.0, 3.0]))
      >>> print(np.array(gradient).round(6))
      [2. 6.]
    """
    checks.POSITIVE.check("h", h)
    x = jax.tree.map(jnp.asarray, x)
    for name, leaf in named_leaves(x).items():
        where = f" at {name}" if name else ""
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"x{where} must be floating point, got {leaf.dtype}")
        eps = float(jnp.finfo(leaf.dtype).eps)
        if leaf.dtype.itemsize < 8 and h < 0.1 * eps ** (1 / 3):
            raise ValueError(
                f"x{where} is {leaf.dtype}, too coarse for h = {h:g}: compute in float64, "
                f"inside `with jax.enable_x64(True):`, or give h = {eps ** (1 / 3):.0e} or so"
            )
    return _differences(_scalar(f, x, dout), x)(h)[0]


def _scalar(f: Callable[[Tree], Any], x: Tree, dout: Any) -> Callable[[Tree], jax.Array]:
    """f, or the sum of f times dout: a function with a scalar value."""
    out = jax.eval_shape(f, x)
    structure = structure_of(out)
    if dout is None:
        if structure != structure_of(0) or out.shape != ():
            raise TypeError("f must have a scalar value, or dout must be given")
        return f
    dout = jax.tree.map(jnp.asarray, dout)
    if structure_of(dout) != structure or any(
        np.shape(d) != o.shape
        for d, o in zip(jax.tree.leaves(dout), jax.tree.leaves(out), strict=True)
    ):
        raise ValueError("dout must have the tree structure and the shapes of f(x)")

    def scalar(x: Tree) -> jax.Array:
        products = jax.tree.map(lambda d, o: jnp.vdot(*promote(d, o)), dout, f(x))
        return jnp.stack(promote(*jax.tree.leaves(products))).sum()

    return scalar


def _differences(
    f: Callable[[Tree], jax.Array], x: Tree, chosen: dict[str, np.ndarray] | None = None
) -> Callable[[float], tuple[Tree, Tree]]:
    """Central differences of a scalar function, and the jumps between the one-sided ones.

    Args:
      f: a function of x with a scalar value.
      x: a tree of arrays.
      chosen: for leaves by path, the flat indices of the elements to move; None is all.

    Returns:
      A function of the step h that gives two trees of the structure of x: the derivatives,
      and the differences of the right and the left derivative. A leaf is flat,
      [len(chosen)], where elements are chosen. Another h compiles nothing again.
    """
    leaves, structure = jax.tree.flatten(x)
    names = list(named_leaves(x))

    def compiled(place: int) -> Callable[[float], tuple[jax.Array, jax.Array]]:
        leaf = leaves[place]
        picked = None if chosen is None else jnp.asarray(chosen[names[place]], int)
        indices = jnp.arange(leaf.size) if picked is None else picked
        if not len(indices):
            return lambda h: (jnp.zeros_like(leaf), jnp.zeros_like(leaf))
        shape = leaf.shape if picked is None else picked.shape

        @jax.jit
        def at_step(leaves: list[jax.Array], h: jax.Array) -> tuple[jax.Array, jax.Array]:
            def value(leaf: jax.Array) -> jax.Array:
                changed = [*leaves[:place], leaf, *leaves[place + 1 :]]
                return f(jax.tree.unflatten(structure, changed))

            def moved(index: jax.Array) -> tuple[jax.Array, jax.Array]:
                step = jnp.zeros(leaf.size, leaf.dtype).at[index].set(h).reshape(leaf.shape)
                return value(leaves[place] + step), value(leaves[place] - step)

            lanes = max(1, min(len(indices), _LANES // max(1, leaf.size)))
            right, left = jax.lax.map(moved, indices, batch_size=lanes)
            right, left, here, h = promote(right, left, value(leaves[place]), h)
            jump = (right - here) / h - (here - left) / h
            return ((right - left) / (2 * h)).reshape(shape), jump.reshape(shape)

        return lambda h: at_step(leaves, jnp.asarray(h, leaf.dtype))

    steps = [compiled(place) for place in range(len(leaves))]

    def differences(h: float) -> tuple[Tree, Tree]:
        results = [step(h) for step in steps]
        derivatives, jumps = [d for d, _ in results], [j for _, j in results]
        return jax.tree.unflatten(structure, derivatives), jax.tree.unflatten(structure, jumps)

    return differences


class GradientRow(NamedTuple):
    """One leaf in a `GradientCheck`.

    Attributes:
      name: its path, "affine1/w"; "input x" is the gradient with respect to x.
      shape: its shape.
      autodiff: `scaled_error` of the hand-written gradient against autodiff, over the leaf.
      numerical: `scaled_error` against the numerical gradient, over the elements checked.
      beyond_rounding: the same, less what rounding of the loss may explain, 10 eps |loss| / h.
      relative: `relative_error` against the numerical gradient.
      checked: how many elements were checked numerically.
      kinks: how many more lie on a kink of the loss, where it has no derivative.
    """

    name: str
    shape: tuple[int, ...]
    autodiff: Discrepancy
    numerical: Discrepancy
    beyond_rounding: Discrepancy
    relative: Discrepancy
    checked: int
    kinks: int


class GradientCheck(NamedTuple):
    """The result of `check_gradients`; `print` it for a table of the leaves.

    Attributes:
      loss: the loss at which it was done.
      rows: a GradientRow for each leaf.
      tol_autodiff: what `row.autodiff` may be at most.
      tol_numerical: what `row.beyond_rounding` may be at most.
    Example:
      >>> net, x, y = fn.mlp([], 2), np.ones((3, 4), "f"), np.array([0, 1, 1])
      >>> params, state, _ = net.init(jax.random.key(0), (4,))
      >>> check = fn.check_gradients(net, params, state, x, y, max_elements=6)
      >>> [(row.name, row.shape, row.checked) for row in check.rows]
      [('affine1/b', (2,), 2), ('affine1/w', (4, 2), 6), ('input x', (3, 4), 6)]
      >>> check.passed, check.failures
      (True, [])
    """

    loss: float
    rows: tuple[GradientRow, ...]
    tol_autodiff: float
    tol_numerical: float

    @property
    def passed(self) -> bool:
        """Whether every leaf agrees; a NaN anywhere does not."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """What disagrees and where, a line each."""
        lines = []
        for row in self.rows:
            for against, error, tol in (
                ("autodiff", row.autodiff, self.tol_autodiff),
                ("numerical", row.beyond_rounding, self.tol_numerical),
            ):
                if not error <= tol:
                    lines.append(
                        f"{row.name}{list(error.index)} differs from {against} "
                        f"by {error:.1e} of the gradient's size, {tol:.0e} is allowed"
                    )
        return lines

    def __str__(self) -> str:
        head = ("leaf", "shape", "autodiff", "numerical", "relative", "worst element", "checked")
        table: list[tuple[str, ...]] = [head]
        for row in self.rows:
            shape = " x ".join(map(str, row.shape))
            worst = ", ".join(map(str, row.relative.index)) if row.checked else "-"
            checked = f"{row.checked:,}" + (f" ({row.kinks:,} on kinks)" if row.kinks else "")
            errors = [f"{e:.1e}" for e in (row.autodiff, row.numerical, row.relative)]
            table.append((row.name, shape, *errors, f"[{worst}]", checked))
        verdict = "all gradients agree" if self.passed else "GRADIENTS DISAGREE"
        tolerances = (
            f"{verdict} (tolerance {self.tol_autodiff:.0e} against autodiff, "
            f"{self.tol_numerical:.0e} beyond rounding against numerical; loss {self.loss:.6g})"
        )
        return "\n".join([*aligned(table), tolerances, *self.failures])


def check_gradients(
    net: Layer,
    params: Tree,
    state: Tree,
    x: Any,
    y: Any,
    *,
    reg: Any = 0.0,
    key: Any = None,
    train: bool = True,
    loss_fn: LossFn = softmax_loss,
    sample_weight: Any = None,
    tol_autodiff: float = 1e-12,
    tol_numerical: float = 1e-7,
    h: float = 1e-5,
    max_elements: int | None = None,
) -> GradientCheck:
    """Check the hand-written gradients of a network on a batch, in float64.

    The gradient of the loss with respect to every parameter, and to x, is compared with
    autodiff of the forward pass (every element) and with central differences. Rounding of
    the loss leaves up to about 10 eps |loss| / h in these, which is no disagreement. Where they
    fail they are taken again with h / 100: near a kink of a ReLU or a hinge a step may
    cross it. Elements exactly on a kink, where the loss has a left and a right
    derivative, have no numerical gradient: they are counted and left to autodiff.

    Args:
      net: the network.
      params: its parameters, of any floating point dtype; the check casts them to float64.
      state: its state.
      x: [N, ...] inputs.
      y: [N] integer labels, or what else loss_fn takes, such as [N, K] numbers.
      reg: L2 strength, as for `loss_and_grads`.
      key: for random layers.
      train: whether layers are in training mode.
      loss_fn, sample_weight: as for `loss_and_grads`.
      tol_autodiff: tolerance for `scaled_error` against autodiff.
      tol_numerical: tolerance for `scaled_error` against central differences, beyond rounding.
      h: step of the central differences.
      max_elements: check at most so many elements of a leaf numerically, spread evenly;
        None is all of them.
    Returns:
      A GradientCheck: `.passed` and, printed, a table.
    Raises:
      ValueError, TypeError: max_elements is out of its range or no integer, or what
        `loss_and_grads` raises.
    Example:
      >>> net, x, y = fn.mlp([4], 2, activation="tanh"), np.ones((3, 2), "f"), np.array([0, 1, 1])
      >>> params, state, _ = net.init(jax.random.key(0), (2,))
      >>> check = fn.check_gradients(net, params, state, x, y, reg=1e-2)
      >>> check.passed
      True
      >>> print(str(check).splitlines()[-1].split(" (")[0])
      all gradients agree
    """
    if max_elements is not None:
        max_elements = checks.COUNT.check("max_elements", max_elements)
    with jax.enable_x64(True):
        params, state = _to_float64(params), _to_float64(state)
        x, y = jnp.asarray(as_input(x, params), jnp.float64), jnp.asarray(y)
        options: dict[str, Any] = {"reg": reg, "key": key, "train": train}
        options |= {"loss_fn": loss_fn, "sample_weight": sample_weight}

        def f(args: dict[str, Tree]) -> jax.Array:
            return loss(net, args["params"], state, args["x"], y, **options)

        args = {"params": params, "x": x}

        @jax.jit
        def by_hand(params: Tree, x: Any) -> tuple[jax.Array, Tree]:
            value, grads, _ = loss_and_grads(net, params, state, x, y, **options)
            scores, cache, _ = net.forward(params, state, x, key=key, train=train)
            dx, _ = net.backward(loss_of_scores(loss_fn, scores, y, sample_weight)[1], cache)
            return value, {"params": grads, "x": dx}

        value, grads = by_hand(params, x)
        hand = _as_rows(grads)
        auto = _as_rows(jax.jit(jax.grad(f))(args))
        loss_value = float(value)
        rows = _compare(f, args, hand, auto, loss_value, h, tol_numerical, max_elements)
    return GradientCheck(loss_value, rows, tol_autodiff, tol_numerical)


def _compare(
    f: Callable[[Tree], jax.Array],
    args: Tree,
    hand: dict[str, np.ndarray],
    auto: dict[str, np.ndarray],
    value: float,
    h: float,
    tol: float,
    max_elements: int | None,
) -> tuple[GradientRow, ...]:
    autodiff = scaled_error(hand, auto).leaves
    scales = _scales(_pairs(hand, auto))
    places = {
        name: _spread(leaf.size, max_elements)
        for name, leaf in zip(hand, named_leaves(args).values(), strict=True)
    }
    chosen = {name: places[_row_name(name)] for name in named_leaves(args)}

    differences = _differences(f, args, chosen)

    def difference(name: str, derivative: np.ndarray) -> np.ndarray:
        return np.abs(hand[name].ravel()[places[name]] - derivative)

    def excess(name: str, derivative: np.ndarray, step: float) -> np.ndarray:
        beyond = np.maximum(0, difference(name, derivative) - _rounding(value, step))
        return _over(beyond, scales[name])

    numerical = _as_rows(differences(h)[0])
    errors = {name: excess(name, numerical[name], h) for name in hand}
    kinks = {name: np.zeros(len(places[name]), bool) for name in hand}
    if not all(np.all(errors[name] <= tol) for name in hand):
        finer, jumps = map(_as_rows, differences(h / 100))
        for name in hand:
            wrong = ~(errors[name] <= tol)
            jumps_most = 1e-3 * scales[name] + _rounding(value, h / 100)
            kinks[name] = wrong & (np.abs(jumps[name]) > jumps_most)
            again = excess(name, finer[name], h / 100)
            closer = wrong & (again < errors[name])
            numerical[name] = np.where(closer, finer[name], numerical[name])
            errors[name] = np.where(closer, again, errors[name])

    rows = []
    for name, leaf in hand.items():
        smooth = np.flatnonzero(~kinks[name])
        flat = places[name][smooth]
        derivative = numerical[name][smooth]
        absolute = difference(name, numerical[name])[smooth]
        relative = absolute / np.maximum(1e-8, np.abs(leaf.ravel()[flat]) + np.abs(derivative))
        rows.append(
            GradientRow(
                name,
                leaf.shape,
                autodiff[name],
                _place(_over(absolute, scales[name]), flat, leaf.shape, name),
                _place(errors[name][smooth], flat, leaf.shape, name),
                _place(relative, flat, leaf.shape, name),
                len(smooth),
                int(kinks[name].sum()),
            )
        )
    return tuple(rows)


def _rounding(value: float, step: float) -> float:
    """What rounding of the loss may leave in a difference quotient."""
    return 10 * float(np.finfo(np.float64).eps) * abs(value) / step


def _place(errors: np.ndarray, flat: np.ndarray, shape: tuple[int, ...], name: str) -> Discrepancy:
    """The worst of the errors of the elements `flat` of a leaf."""
    if not len(errors):
        return Discrepancy(0.0, name)
    worst = int(np.argmax(errors))
    return Discrepancy(errors[worst], name, _index(int(flat[worst]), shape))


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _spread(size: int, most: int | None) -> np.ndarray:
    if most is None or size <= most:
        return np.arange(size)
    return np.unique(np.linspace(0, size - 1, most).round().astype(int))


def _row_name(name: str) -> str:
    return "input x" if name == "x" else name.removeprefix("params/").removeprefix("params")


def _as_rows(tree: Tree) -> dict[str, np.ndarray]:
    return {_row_name(name): np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def _to_float64(tree: Tree) -> Tree:
    def cast(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _pairs(a: Tree, b: Tree) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The leaves of two trees side by side, in float64."""
    a, b = named_leaves(a), named_leaves(b)
    if a.keys() != b.keys():
        only = sorted(a.keys() ^ b.keys())
        raise ValueError(f"the trees differ: only one of them has {', '.join(only)}")
    pairs = {name: (_float64(a[name]), _float64(b[name])) for name in a}
    for name, (p, q) in pairs.items():
        if p.shape != q.shape:
            where = f" at {name}" if name else ""
            raise ValueError(f"shapes differ{where}: {list(p.shape)} and {list(q.shape)}")
    return pairs


def _float64(leaf: Any) -> np.ndarray:
    leaf = np.asarray(leaf)
    if np.iscomplexobj(leaf):
        raise TypeError(f"arrays must be real, got {leaf.dtype}")
    return leaf.astype(np.float64)


def _scales(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    largest = {
        name: max(np.abs(p).max(initial=0), np.abs(q).max(initial=0))
        for name, (p, q) in pairs.items()
    }
    floor = 1e-3 * max(largest.values(), default=0)
    return {name: max(value, floor) for name, value in largest.items()}


def _over(difference: np.ndarray, scale: float) -> np.ndarray:
    """difference / scale, where 0 / 0 is 0: two gradients of 0 agree."""
    return difference / scale if scale > 0 or np.isnan(scale) else difference


def _worst(errors: dict[str, np.ndarray]) -> Discrepancy:
    leaves = {
        name: _place(error.ravel(), np.arange(error.size), error.shape, name)
        for name, error in errors.items()
    }
    if not leaves:
        return Discrepancy(0.0)
    # argmax takes a NaN for the largest: an undefined gradient is the worst there is.
    worst = list(leaves.values())[int(np.argmax([float(leaf) for leaf in leaves.values()]))]
    return Discrepancy(worst, worst.leaf, worst.index, leaves)
