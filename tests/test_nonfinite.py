"""Numbers gone bad are found at their step, named, and dealt with as was asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import funcnet as fn
from funcnet import loop

pytestmark = pytest.mark.usefixtures("unoptimized")
KEY = jax.random.key(2)
MARKED = 17  # the example of which something goes wrong


def blobs(count=43):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    x = (rng.normal(size=(count, 2, 4)) + y[:, None, None]).astype(np.float32)
    x[MARKED, 0, 0] = 9000
    return fn.Dataset(x, y, x[:9], y[:9], x[:0], y[:0], ("a", "b", "c"))


def train(**changes):
    options = {"net": fn.mlp([6, 5], 3), "optimizer": fn.adam(1e-3), "dataset": blobs()}
    options |= {"key": KEY, "epochs": 4, "batch_size": 8, "preprocess": None, "eval_every": None}
    return fn.fit(**{**options, **changes})


def step_of_marked(epoch):
    """The number of the step, counted from 1, that sees the marked example in an epoch."""
    order = loop.Orders(jax.random.split(KEY)[1], 43).of(epoch)
    return 6 * epoch + int(np.flatnonzero(order == MARKED)[0]) // 8 + 1


def with_value(value):
    def spoil(key, x):
        return jnp.where(x > 50, value, x)

    return spoil


def bad_gradient(value):
    """A loss whose value is right, and whose gradient is not where an example is far away."""

    def loss_fn(scores, y):
        loss, dscores = fn.softmax_loss(scores, y)
        far = jnp.abs(scores).max() > 200
        return loss, jnp.where(far, value, dscores)

    return loss_fn


def after(steps, bad, value):
    """Adam whose updates are of this value at one of the steps; its moments stay right."""
    inner = fn.adam(1e-3)

    def update(grads, state, params):
        updates, new = inner.update(grads, state, params)
        at = state["step"] == steps
        spoiled = jnp.where(at, value, updates[bad]["w"])
        return updates | {bad: updates[bad] | {"w": spoiled}}, new

    return fn.Optimizer(inner.init, update)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_input_that_is_not_finite_is_found_at_its_step(value):
    with pytest.raises(fn.NonFiniteError, match="is not finite: loss") as error:
        train(augment=with_value(value))
    trouble = error.value.trouble
    assert (trouble.step, trouble.epoch) == (step_of_marked(0), 1)
    assert {"loss", "gradient of affine1/w", "update of affine1/w"} <= set(trouble.where)
    assert f"step {trouble.step}, in epoch 1, is not finite" in str(error.value)
    assert error.value.result.status == "diverged"
    assert int(error.value.result.state.epoch) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("steps", slow_but([0, 5, 6, 13, 23], 13))
@pytest.mark.parametrize("look", ["seen", "not seen"])
def test_an_update_that_is_not_finite_is_found_at_its_step(value, steps, look):
    options = {"eval_every": 1} if look == "seen" else {}
    with pytest.raises(fn.NonFiniteError) as error:
        train(optimizer=after(steps, "affine2", value), **options)
    trouble, result = error.value.trouble, error.value.result
    assert trouble.where == ("update of affine2/w",)
    assert (trouble.step, trouble.epoch) == (steps + 1, steps // 6 + 1)
    whole = train(optimizer=after(-1, "affine2", value), epochs=max(1, steps // 6))
    assert int(result.state.epoch) == steps // 6
    if steps >= 6:
        assert result.state.params == whole.state.params
        assert (result.history.loss == whole.history.loss).all()
        before = train(optimizer=after(-1, "affine2", value)).history.loss[steps - 1]
        assert trouble.last_loss == before
    elif steps == 0:
        assert np.isnan(trouble.last_loss)


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is():
    with pytest.raises(fn.NonFiniteError) as error:
        train(loss_fn=bad_gradient(np.nan), optimizer=fn.sgd(1e-4))
    assert error.value.trouble.step == step_of_marked(0)
    assert error.value.trouble.where[0] == "gradient of affine1/b"
    assert "loss" not in error.value.trouble.where


def test_what_hides_in_a_moment_is_found():
    """The sign of an infinite gradient is a usual update: Lion's moment alone has it."""
    with pytest.raises(fn.NonFiniteError) as error:
        train(loss_fn=bad_gradient(np.inf), optimizer=fn.lion(1e-6), epochs=1)
    assert error.value.trouble.step == step_of_marked(0)


def test_a_rate_of_1e10_is_found():
    with pytest.raises(fn.NonFiniteError, match="a smaller learning rate"):
        train(optimizer=fn.sgd(1e10), epochs=9)


def test_denormal_numbers_and_scores_of_1e30_are_finite():
    data = blobs()
    small = data._replace(x_train=data.x_train * np.float32(1e-40))
    assert train(dataset=small).status == "finished"
    loss, dscores = fn.softmax_loss(jnp.array([[1e30, 0.0], [-1e30, 1e30]]), jnp.array([0, 1]))
    assert (float(loss), float(jnp.abs(dscores).max())) == (0, 0)


def test_stop_gives_the_result_of_the_last_epoch_before_it():
    seen = []
    optimizer = after(13, "affine1", np.nan)
    result = train(
        optimizer=optimizer,
        on_nonfinite="stop",
        eval_every=1,
        callback=lambda epoch, *_: seen.append(epoch),
    )
    assert (result.status, result.interrupted, result.trouble.step) == ("diverged", False, 14)
    assert seen == [0, 1, 2]
    assert result.history.epoch.tolist() == [0, 1, 2]
    assert len(result.history.loss) == 12
    assert result.state.params == train(optimizer=after(-1, "affine1", 0), epochs=2).state.params


def test_a_run_that_is_well_has_no_trouble():
    result = train()
    assert (result.status, result.trouble) == ("finished", None)


def test_what_is_not_finite_in_the_beginning_is_not_looked_at():
    """An optimizer of one's own may keep the least loss so far, which starts at infinity."""
    inner = fn.sgd(1e-3)

    def init(params):
        return {"inner": inner.init(params), "least": jnp.inf}

    def update(grads, state, params):
        updates, new = inner.update(grads, state["inner"], params)
        return updates, {"inner": new, "least": state["least"]}

    assert train(optimizer=fn.Optimizer(init, update)).status == "finished"


def test_the_last_good_checkpoint_stays(tmp_path):
    options = {"optimizer": after(20, "affine1", np.inf), "checkpoint": tmp_path}
    with pytest.raises(fn.NonFiniteError):
        train(checkpoint_every=1, **options)
    names = sorted(path.name for path in tmp_path.glob("epoch-*"))
    assert names == ["epoch-00000002.safetensors", "epoch-00000003.safetensors"]
    with pytest.raises(fn.NonFiniteError) as error:  # it goes the same way
        train(resume=True, **options)
    assert error.value.trouble.step == 21


@pytest.mark.parametrize("large", [False, True])
def test_skipped_updates_change_nothing_but_the_count(large, monkeypatch):
    if large:
        monkeypatch.setattr(loop, "LARGE", 0)
    net = fn.mlp([6, 5], 3, normalization="batchnorm", keep_prob=0.9)
    state = fn.init_train_state(net, fn.adam(1e-2), (2, 4), key=KEY)
    everything = {"net": net, "key": None, "train_state": state, "batch_size": 43, "epochs": 3}
    result = train(augment=with_value(np.nan), on_nonfinite="skip", **everything)
    assert result.state.params == state.params
    assert result.state.state == state.state
    assert result.state.opt_state == state.opt_state
    assert (int(result.state.step), int(result.state.epoch)) == (3, 3)
    assert np.isnan(result.history.loss).all()
    assert (result.status, result.trouble) == ("finished", None)


def test_an_update_is_skipped_for_its_gradient_alone():
    state = fn.init_train_state(fn.mlp([6, 5], 3), fn.adam(1e-3), (2, 4), key=KEY)
    options = {"key": None, "train_state": state, "batch_size": 43, "epochs": 1}
    result = train(loss_fn=bad_gradient(np.inf), on_nonfinite="skip", **options)
    assert result.state.params == state.params
    assert result.state.opt_state == state.opt_state
    assert np.isnan(result.history.loss).all()


def test_only_bad_updates_are_skipped():
    result = train(augment=with_value(np.nan), on_nonfinite="skip")
    bad = np.flatnonzero(~np.isfinite(result.history.loss)) + 1
    assert bad.tolist() == [step_of_marked(epoch) for epoch in range(4)]
    assert int(result.state.opt_state["step"]) == 24 - 4
    # The steps between them are those of a loop that leaves the bad ones out.
    data, options = blobs(), {"augment": with_value(np.nan)}
    step = fn.make_train_step(fn.mlp([6, 5], 3), fn.adam(1e-3), **options)
    state = fn.init_train_state(fn.mlp([6, 5], 3), fn.adam(1e-3), (2, 4), key=KEY)
    for epoch in range(4):
        order = loop.Orders(state.key, 43).of(epoch)
        for first in range(0, 43, 8):
            batch = order[first : first + 8]
            new, metrics = step(state, data.x_train[batch], data.y_train[batch])
            well = np.isfinite(metrics["loss"])
            state = new if well else state._replace(step=new.step)
    for ours, theirs in zip(
        jax.tree.leaves(result.state.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_skipping_where_nothing_is_bad_changes_nothing():
    plain, skipping = train(), train(on_nonfinite="skip")
    np.testing.assert_allclose(skipping.history.loss, plain.history.loss, rtol=1e-5)


def test_the_policy_is_one_of_three():
    with pytest.raises(ValueError, match="unknown on_nonfinite 'rise': did you mean 'raise'"):
        train(on_nonfinite="rise")
