"""Layers of members, which share weights or have their own: [N, K, D], the features of K members.

What they make are the nets of `ensembles`. Each layer has its passes, as functions of arrays,
beside it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet import checks, layers
from funcnet.bind import bind
from funcnet.layer import Initial, Layer, Shape, make_layer
from funcnet.net import DIM, check_scale, initial_weights
from funcnet.tree import Array

__all__ = [
    "batch_ensemble_affine",
    "batch_ensemble_affine_backward",
    "batch_ensemble_affine_forward",
    "member_affine",
    "member_affine_backward",
    "member_affine_forward",
    "member_scale",
    "member_scale_backward",
    "member_scale_forward",
    "shared_affine",
    "shared_affine_backward",
    "shared_affine_forward",
]

# Initial factors of members, by name.
FACTORS = {
    "ones": lambda key, shape: jnp.ones(shape),
    "signs": lambda key, shape: jax.random.rademacher(key, shape, dtype=jnp.ones(()).dtype),
    "normal": jax.random.normal,
}


def member_scale_forward(x: Array, r: Array) -> tuple[jax.Array, Any]:
    """Factors of each member for each feature, `out_k = x_k * r_k`.

    Args:
      x: [N, D] floating point, the same for all members, or [N, K, D].
      r: [K, D], the dtype of x.
    Returns:
      out [N, K, D], and the cache for `member_scale_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, r = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 1.0], [-1.0, 3.0]])
      >>> out, cache = fn.member_scale_forward(x, r)
      >>> print(out)
      [[[ 1.  2.]
        [-1.  6.]]]
      >>> dx, dr = fn.member_scale_backward(jnp.ones((1, 2, 2)), cache)
      >>> print(dx)
      [[0. 4.]]
    """
    x, r = jnp.asarray(x), jnp.asarray(r)
    if r.ndim != 2:
        raise ValueError(f"member_scale: r must be [K, D], got {list(r.shape)}")
    _check_members("member_scale", x, *r.shape)
    layers.same_dtype("member_scale", x=x, r=r)
    return _by_member(x) * r[None], (x, r)


def member_scale_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array]:
    """Gradients of `member_scale_forward`.

        dx_k = dout_k r_k,   dr_k = sum of dout_k x_k over the batch

    and dx is the sum of the dx_k where all members have the same x.

    Args:
      dout: [N, K, D], the gradient of the loss with respect to `out`.
      cache: what `member_scale_forward` returned.
    Returns:
      dx [N, D] or [N, K, D], dr [K, D].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.member_scale_forward(jnp.array([[1.0, 2.0]]), jnp.ones((2, 2)))
      >>> dx, dr = fn.member_scale_backward(jnp.ones((1, 2, 2)), cache)
      >>> print(dr)
      [[1. 2.]
       [1. 2.]]
    """
    x, r = cache
    dout = layers.like_output("member_scale", dout, (x.shape[0], *r.shape), r.dtype)
    wide = layers.accumulator(dout)
    dr = (wide * layers.accumulator(_by_member(x))).sum(axis=0)
    dx = _like_input(wide * layers.accumulator(r)[None], x)
    return dx.astype(x.dtype), dr.astype(r.dtype)


def member_scale(members: int, *, r_init: str = "signs") -> Layer:
    """Factors r [members, D] of each member, [N, D] or [N, members, D] to [N, members, D]: what
    makes members of one input, and all that tells those of TabM-mini apart (Gorishniy et al. 2025,
    arXiv 2410.24210). See `member_scale_forward`.

    Args:
      members: K.
      r_init: the factors at the start: "signs", 1 or -1 at random; "normal", which TabM has where
        it follows embeddings; or "ones".
    Returns:
      The layer, of kind "member_scale".
    Raises:
      ValueError: members is below 1, or there are no such factors; in `init`, the shape is another.
      TypeError: members is no integer.
    Example:
      >>> params, state, out_shape = fn.member_scale(8).init(jax.random.key(0), (3,))
      >>> sorted(set(params["r"].ravel().tolist())), out_shape
      ([-1.0, 1.0], (8, 3))
    """
    members = checks.COUNT.check("members", members)
    checks.choose("r_init", r_init, FACTORS)
    init = bind(_init_member_scale, members=members, r_init=r_init)
    return make_layer(
        "member_scale", member_scale_forward, member_scale_backward, init, names=("r",)
    )


def _init_member_scale(key: Any, in_shape: Shape, *, members: int, r_init: str) -> Initial:
    shape = (members, _features("member_scale", in_shape, members))
    return {"r": FACTORS[r_init](checks.key(key), shape)}, {}, shape


def batch_ensemble_affine_forward(
    x: Array, w: Array, r: Array, s: Array, b: Array
) -> tuple[jax.Array, Any]:
    """Affine maps of members that share a weight but for factors of its rows and columns (Wen et
    al. 2020, arXiv 2002.06715, equation 5):

        out_k = ((x_k * r_k) w) * s_k + b_k

    Args:
      x: [N, D] floating point, the same for all members, or [N, K, D].
      w: [D, M], the dtype of x.
      r: [K, D], the dtype of x.
      s, b: [K, M], the dtype of x.
    Returns:
      out [N, K, M], and the cache for `batch_ensemble_affine_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, w, s, b = jnp.ones((1, 2)), jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.zeros((2, 1))
      >>> r = jnp.array([[1.0, 1.0], [1.0, -1.0]])
      >>> out, cache = fn.batch_ensemble_affine_forward(x, w, r, s, b)
      >>> print(out)
      [[[2.]
        [0.]]]
      >>> dx, dw, dr, ds, db = fn.batch_ensemble_affine_backward(jnp.ones((1, 2, 1)), cache)
      >>> print(dw.T)
      [[2. 0.]]
    """
    x, w, r, s, b = (jnp.asarray(array) for array in (x, w, r, s, b))
    if w.ndim != 2 or r.ndim != 2:
        raise ValueError(
            "batch_ensemble_affine: w must be [D, M] and r [K, D], "
            f"got {list(w.shape)} and {list(r.shape)}"
        )
    members, (features, dim) = r.shape[0], w.shape
    for name, array, letters, size in (
        ("r", r, "[K, D]", features),
        ("s", s, "[K, M]", dim),
        ("b", b, "[K, M]", dim),
    ):
        layers.check_shape("batch_ensemble_affine", name, array, letters, (members, size))
    _check_members("batch_ensemble_affine", x, members, features)
    layers.same_dtype("batch_ensemble_affine", x=x, w=w, r=r, s=s, b=b)
    product = (_by_member(x) * r[None]) @ w  # [N, K, M]
    wide = layers.accumulator(product) * layers.accumulator(s)[None]
    out = wide + layers.accumulator(b)[None]
    return out.astype(x.dtype), (x, w, r, s, product)


def batch_ensemble_affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, ...]:
    """Gradients of `batch_ensemble_affine_forward`.

    With h_k = x_k * r_k, dproduct_k = dout_k * s_k and dh_k = dproduct_k w^T:
        dw = sum of h_k^T dproduct_k over the members,
        dr_k = sum of dh_k * x_k,   ds_k = sum of dout_k * (h_k w),   db_k = sum of dout_k
        over the batch,   dx_k = dh_k * r_k

    and dx is the sum of the dx_k where all members have the same x.

    Args:
      dout: [N, K, M], the gradient of the loss with respect to `out`.
      cache: what `batch_ensemble_affine_forward` returned.
    Returns:
      dx [N, D] or [N, K, D], dw [D, M], dr [K, D], ds [K, M], db [K, M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, w, r, s = jnp.ones((1, 2)), jnp.ones((2, 1)), jnp.ones((2, 2)), jnp.ones((2, 1))
      >>> _, cache = fn.batch_ensemble_affine_forward(x, w, r, s, s)
      >>> [g.shape for g in fn.batch_ensemble_affine_backward(jnp.ones((1, 2, 1)), cache)]
      [(1, 2), (2, 1), (2, 2), (2, 1), (2, 1)]
    """
    x, w, r, s, product = cache
    dout = layers.like_output("batch_ensemble_affine", dout, product.shape, product.dtype)
    dproduct = dout * s[None]  # [N, K, M]
    dw = jnp.einsum("nkd,nkm->dm", _by_member(x) * r[None], dproduct)
    dh, wide = layers.accumulator(dproduct @ w.T), layers.accumulator(dout)
    dr = (dh * layers.accumulator(_by_member(x))).sum(axis=0)
    ds = (wide * layers.accumulator(product)).sum(axis=0)
    dx = _like_input(dh * layers.accumulator(r)[None], x)
    return tuple(gradient.astype(x.dtype) for gradient in (dx, dw, dr, ds, wide.sum(axis=0)))


def batch_ensemble_affine(
    dim: int,
    members: int,
    *,
    r_init: str = "signs",
    s_init: str = "signs",
    weight_scale: Any = None,
) -> Layer:
    """Affine layer of members that share w [D, dim], with factors r [members, D] and s
    [members, dim] and biases b [members, dim] of their own; [N, D] or [N, members, D] to
    [N, members, dim]. See `batch_ensemble_affine_forward`.

    Args:
      dim: the number of outputs of each member.
      members: K.
      r_init, s_init: the factors at the start: "signs", 1 or -1 at random, as in the paper; "ones",
        as in TabM behind its first layer; or "normal".
      weight_scale: of the initial w, as for `affine`. Biases start at 0.
    Returns:
      The layer, of kind "batch_ensemble_affine".
    Raises:
      ValueError: a size is below 1, there are no such factors, or weight_scale is below 0, not
        finite or the name of none; in `init`, the shape is another.
      TypeError: a size is no integer, or weight_scale no number.
    Example:
      >>> layer = fn.batch_ensemble_affine(4, members=2)
      >>> params, state, out_shape = layer.init(jax.random.key(0), (3,))
      >>> params
      FrozenDict(34 parameters
        b  float32[2, 4]
        r  float32[2, 3]
        s  float32[2, 4]
        w  float32[3, 4]
      )
      >>> out_shape
      (2, 4)
    """
    dim, members = DIM.check("dim", dim), checks.COUNT.check("members", members)
    checks.choose("r_init", r_init, FACTORS)
    checks.choose("s_init", s_init, FACTORS)
    check_scale(weight_scale)
    return make_layer(
        "batch_ensemble_affine",
        batch_ensemble_affine_forward,
        batch_ensemble_affine_backward,
        bind(
            _init_batch_ensemble,
            dim=dim,
            members=members,
            r_init=r_init,
            s_init=s_init,
            weight_scale=weight_scale,
        ),
        names=("w", "r", "s", "b"),
    )


def _init_batch_ensemble(
    key: Any,
    in_shape: Shape,
    *,
    dim: int,
    members: int,
    r_init: str,
    s_init: str,
    weight_scale: Any,
) -> Initial:
    features = _features("batch_ensemble_affine", in_shape, members)
    w_key, r_key, s_key = jax.random.split(checks.key(key), 3)
    w = initial_weights(w_key, (features, dim), weight_scale)
    r = FACTORS[r_init](r_key, (members, features))
    s = FACTORS[s_init](s_key, (members, dim))
    return {"w": w, "r": r, "s": s, "b": jnp.zeros((members, dim))}, {}, (members, dim)


def shared_affine_forward(x: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """Affine map of the last axis, `out = x w + b`, the same for all members.

    Args:
      x: [N, d1, ..., dk, D] floating point.
      w: [D, M], the dtype of x.
      b: [M], the dtype of x.
    Returns:
      out [N, d1, ..., dk, M], and the cache for `shared_affine_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, w, b = jnp.ones((5, 2, 3)), jnp.ones((3, 4)), jnp.zeros(4)
      >>> out, cache = fn.shared_affine_forward(x, w, b)
      >>> dx, dw, db = fn.shared_affine_backward(out, cache)
      >>> out.shape, dx.shape, dw.shape, db.shape
      ((5, 2, 4), (5, 2, 3), (3, 4), (4,))
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    if x.ndim < 2:
        raise ValueError(f"shared_affine: x must be [N, ..., D], got {list(x.shape)}")
    rows, w, b = layers.check_affine("shared_affine", x.reshape(-1, x.shape[-1]), w, b)
    return (rows @ w + b[None]).reshape(*x.shape[:-1], w.shape[1]), (x, w)


def shared_affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `shared_affine_forward`: those of an affine map of all rows of all examples.

        dx = dout w^T,   dw = sum of x^T dout,   db = sum of dout

    Args:
      dout: [N, d1, ..., dk, M], the gradient of the loss with respect to `out`.
      cache: what `shared_affine_forward` returned.
    Returns:
      dx [N, d1, ..., dk, D], dw [D, M], db [M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> _, cache = fn.shared_affine_forward(jnp.ones((5, 2, 3)), jnp.ones((3, 4)), jnp.zeros(4))
      >>> print(fn.shared_affine_backward(jnp.ones((5, 2, 4)), cache)[2])
      [10. 10. 10. 10.]
    """
    x, w = cache
    dout = layers.like_output("shared_affine", dout, (*x.shape[:-1], w.shape[1]), w.dtype)
    rows, drows = x.reshape(-1, w.shape[0]), dout.reshape(-1, w.shape[1])
    return (drows @ w.T).reshape(x.shape), rows.T @ drows, drows.sum(axis=0)


def shared_affine(dim: int, *, weight_scale: Any = None) -> Layer:
    """Affine layer of the last axis, with parameters w [D, dim] and b [dim] that all members
    share: [N, K, D] to [N, K, dim]; `affine` would flatten the examples.

    Args:
      dim: the number of outputs.
      weight_scale: of the initial weights, as for `affine`. Biases start at 0.
    Returns:
      The layer, of kind "shared_affine".
    Raises:
      ValueError: dim is below 1, or weight_scale is below 0, not finite or the name of none; in
        `init`, examples have no axis.
      TypeError: dim is no integer, or weight_scale no number.
    Example:
      >>> params, state, out_shape = fn.shared_affine(4).init(jax.random.key(0), (2, 3))
      >>> params["w"].shape, out_shape
      ((3, 4), (2, 4))
    """
    dim = DIM.check("dim", dim)
    check_scale(weight_scale)
    init = bind(_init_shared, dim=dim, weight_scale=weight_scale)
    return make_layer(
        "shared_affine", shared_affine_forward, shared_affine_backward, init, names=("w", "b")
    )


def _init_shared(key: Any, in_shape: Shape, *, dim: int, weight_scale: Any) -> Initial:
    if not in_shape:
        raise ValueError("shared_affine: in_shape must be (..., D), got []")
    w = initial_weights(checks.key(key), (in_shape[-1], dim), weight_scale)
    return {"w": w, "b": jnp.zeros(dim, w.dtype)}, {}, (*in_shape[:-1], dim)


def member_affine_forward(x: Array, w: Array, b: Array) -> tuple[jax.Array, Any]:
    """An affine map of each member, `out_k = x_k w_k + b_k`.

    Args:
      x: [N, D] floating point, the same for all members, or [N, K, D].
      w: [K, D, M], the dtype of x.
      b: [K, M], the dtype of x.
    Returns:
      out [N, K, M], and the cache for `member_affine_backward`.
    Raises:
      ValueError: shapes do not fit.
      TypeError: dtypes do not.
    Example:
      >>> x, w, b = jnp.ones((5, 3)), jnp.ones((2, 3, 4)), jnp.zeros((2, 4))
      >>> out, cache = fn.member_affine_forward(x, w, b)
      >>> dx, dw, db = fn.member_affine_backward(out, cache)
      >>> out.shape, dx.shape, dw.shape, db.shape
      ((5, 2, 4), (5, 3), (2, 3, 4), (2, 4))
    """
    x, w, b = jnp.asarray(x), jnp.asarray(w), jnp.asarray(b)
    if w.ndim != 3:
        raise ValueError(f"member_affine: w must be [K, D, M], got {list(w.shape)}")
    layers.check_shape("member_affine", "b", b, "[K, M]", (w.shape[0], w.shape[2]))
    _check_members("member_affine", x, *w.shape[:2])
    layers.same_dtype("member_affine", x=x, w=w, b=b)
    return jnp.einsum(f"{_axes(x)},kdm->nkm", x, w) + b[None], (x, w)


def member_affine_backward(dout: Array, cache: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `member_affine_forward`.

        dx_k = dout_k w_k^T,   dw_k = x_k^T dout_k,   db_k = sum of dout_k over the batch

    and dx is the sum of the dx_k where all members have the same x.

    Args:
      dout: [N, K, M], the gradient of the loss with respect to `out`.
      cache: what `member_affine_forward` returned.
    Returns:
      dx [N, D] or [N, K, D], dw [K, D, M], db [K, M].
    Raises:
      ValueError: dout does not have the shape of out.
      TypeError: dout does not have the dtype of out.
    Example:
      >>> x, w, b = jnp.ones((5, 3)), jnp.ones((2, 3, 4)), jnp.zeros((2, 4))
      >>> _, cache = fn.member_affine_forward(x, w, b)
      >>> print(fn.member_affine_backward(jnp.ones((5, 2, 4)), cache)[2])
      [[5. 5. 5. 5.]
       [5. 5. 5. 5.]]
    """
    x, w = cache
    shape = (x.shape[0], w.shape[0], w.shape[2])
    dout = layers.like_output("member_affine", dout, shape, w.dtype)
    dx = jnp.einsum(f"nkm,kdm->{_axes(x)}", dout, w)
    return dx, jnp.einsum(f"{_axes(x)},nkm->kdm", x, dout), dout.sum(axis=0)


def member_affine(dim: int, members: int, *, weight_scale: Any = None) -> Layer:
    """Affine layer with parameters w [members, D, dim] and b [members, dim], of each member its
    own: [N, D] or [N, members, D] to [N, members, dim]. See `member_affine_forward`.

    Args:
      dim: the number of outputs of each member.
      members: K.
      weight_scale: of the initial weights, as for `affine`. Biases start at 0.
    Returns:
      The layer, of kind "member_affine".
    Raises:
      ValueError: a size is below 1, or weight_scale is below 0, not finite or the name of none; in
        `init`, the shape is another.
      TypeError: a size is no integer, or weight_scale no number.
    Example:
      >>> params, state, out_shape = fn.member_affine(4, members=2).init(jax.random.key(0), (3,))
      >>> params["w"].shape, out_shape
      ((2, 3, 4), (2, 4))
    """
    dim, members = DIM.check("dim", dim), checks.COUNT.check("members", members)
    check_scale(weight_scale)
    init = bind(_init_member_affine, dim=dim, members=members, weight_scale=weight_scale)
    return make_layer(
        "member_affine", member_affine_forward, member_affine_backward, init, names=("w", "b")
    )


def _init_member_affine(
    key: Any, in_shape: Shape, *, dim: int, members: int, weight_scale: Any
) -> Initial:
    features = _features("member_affine", in_shape, members)
    w = initial_weights(checks.key(key), (members, features, dim), weight_scale)
    return {"w": w, "b": jnp.zeros((members, dim), w.dtype)}, {}, (members, dim)


def _by_member(x: jax.Array) -> jax.Array:
    """[N, 1, D], or [N, K, D] as it is."""
    return x[:, None] if x.ndim == 2 else x


def _axes(x: jax.Array) -> str:
    return "nd" if x.ndim == 2 else "nkd"


def _like_input(dx: jax.Array, x: jax.Array) -> jax.Array:
    """The gradients of all members, [N, K, D], summed where they had the same x."""
    return dx.sum(axis=1) if x.ndim == 2 else dx


def _check_members(layer: str, x: jax.Array, members: int, features: int) -> None:
    if x.ndim not in (2, 3) or x.shape[1:] not in ((features,), (members, features)):
        raise ValueError(
            f"{layer}: x must be [N, {features}] or [N, {members}, {features}], got {list(x.shape)}"
        )


def _features(layer: str, in_shape: Shape, members: int) -> int:
    if len(in_shape) not in (1, 2) or (len(in_shape) == 2 and in_shape[0] != members):
        raise ValueError(f"{layer}: in_shape must be (D,) or ({members}, D), got {list(in_shape)}")
    return in_shape[-1]
