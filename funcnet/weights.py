"""Weights of classes, from which come those of examples: `class_weights(y, ...)[y]`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checks

__all__ = ["class_weights"]

WEIGHT = checks.NON_NEGATIVE


def class_weights(
    y: Any,
    class_weight: Any,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    sample_weight: Any = None,
) -> np.ndarray | jax.Array:
    """The weight of each class.

    The weight of an example is then `class_weights(...)[y]`, times its `sample_weight` if it has
    one, and goes to a loss as its `sample_weight`: a mean over sum(w), as PyTorch's
    `CrossEntropyLoss(weight=...)` takes it for labels. "balanced" makes all classes that occur
    count alike; it is N / (C n_c) for n_c of N examples in class c and C classes that occur, after
    King and Zeng 2001 (Logistic regression in rare events data), as in scikit-learn:
    so the weights of the examples sum to N. A class of which there is no example has weight 0 then:
    nothing is known of it.

    Args:
      y: [N] integer labels from 0.
      class_weight: None, a weight of 1 for each; "balanced"; weights by name or by number of their
        class, in which those that are not named have 1; or [C] weights. Weights are >= 0, and some
        may be traced.
      class_names: C names, or None.
      num_classes: C, or None. Without both it is the largest label, and 1.
      sample_weight: [N] weights with which "balanced" counts the examples, or None.
    Returns:
      [C] float64 NumPy; a JAX array if any weight is traced.
    Raises:
      ValueError: there is no such class, or a weight, a label or a shape is wrong.
      TypeError: a weight is no number, or what should name a class cannot.
    Example:
      >>> y = np.array([0, 0, 0, 1])
      >>> fn.class_weights(y, "balanced").round(3)
      array([0.667, 2.   ])
      >>> fn.class_weights(y, {"dog": 5.0}, class_names=["cat", "dog"])[y]
      array([1., 1., 1., 5.])
    """
    y = checks.labels(y, num_examples=np.size(y))
    num_classes = _num_classes(y, class_names, num_classes)
    checks.labels(y, num_examples=len(y), num_classes=num_classes)
    if class_weight is None:
        return np.ones(num_classes)
    if isinstance(class_weight, str):
        checks.choose("class_weight", class_weight, {"balanced": True})
        return _balanced(y, num_classes, sample_weight)
    if isinstance(class_weight, Mapping):
        return _by_class(class_weight, class_names, num_classes)
    if not checks.concrete(class_weight):
        if class_weight.shape != (num_classes,):
            raise ValueError(
                f"class_weight must be [C] = [{num_classes}], got {list(class_weight.shape)}"
            )
        return jnp.asarray(class_weight, float)
    return _array(class_weight, num_classes)


def _num_classes(y: np.ndarray, class_names: Sequence[str] | None, given: int | None) -> int:
    if given is not None:
        given = checks.COUNT.check("num_classes", given)
    if class_names is None:
        return int(y.max(initial=-1)) + 1 if given is None else given
    if given not in (None, len(class_names)):
        raise ValueError(f"num_classes is {given}, but there are {len(class_names)} class_names")
    return len(class_names)


def _balanced(y: np.ndarray, num_classes: int, sample_weight: Any) -> np.ndarray:
    if sample_weight is not None:
        sample_weight = checks.weights(sample_weight, num_examples=len(y))
    return balanced(np.bincount(y, sample_weight, num_classes).astype(np.float64))


def balanced(counts: Any) -> Any:
    """The weights of classes that make all alike that occur, of their counts [C], NumPy or JAX."""
    xp, occurs = counts.__array_namespace__(), counts > 0
    share = xp.where(occurs.any(), occurs.sum(), 1) * xp.where(occurs, counts, 1)
    return xp.where(occurs, counts.sum() / share, 0)


def _by_class(
    class_weight: Mapping[Any, Any], class_names: Sequence[str] | None, num_classes: int
) -> np.ndarray | jax.Array:
    weights: dict[int, Any] = {}
    for which, weight in class_weight.items():
        WEIGHT.check(f"the weight of class {which!r}", weight)
        number = _class_number(which, class_names, num_classes)
        if number in weights:
            raise ValueError(f"class_weight has class {number} twice, also as {which!r}")
        weights[number] = weight
    all_of = [weights.get(number, 1.0) for number in range(num_classes)]
    if all(map(checks.concrete, all_of)):
        return np.array([float(weight) for weight in all_of])
    return jnp.stack([jnp.asarray(weight, float) for weight in all_of])


def _class_number(which: Any, class_names: Sequence[str] | None, num_classes: int) -> int:
    names = {name: number for number, name in enumerate(class_names or ())}
    if isinstance(which, str) and class_names is not None:
        return checks.choose("class", which, names)
    if isinstance(which, str):
        raise ValueError(f"class_weight names the class {which!r}: give class_names, or its number")
    if isinstance(which, bool | np.bool_) or not isinstance(which, int | np.integer):
        raise TypeError(f"class_weight needs names or numbers of classes, got {which!r}")
    if not 0 <= which < num_classes:
        raise ValueError(f"class_weight has class {which}, known: 0 to {num_classes - 1}")
    return int(which)


def _array(class_weight: Any, num_classes: int) -> np.ndarray:
    weights = np.asarray(class_weight)
    if weights.shape != (num_classes,):
        raise ValueError(
            f"class_weight must be [C] = [{num_classes}], one weight per class, "
            f"got {list(weights.shape)}"
        )
    return checks.weights(weights, num_examples=num_classes, name="class_weight")
