"""Fully connected networks in JAX with hand-written gradients.

import jax
import funcnet as fn

digits = fn.load_digits()
net = fn.mlp([100, 100], num_classes=10)
result = fn.fit(net, fn.adam(1e-3), digits, key=jax.random.key(0), epochs=20, batch_size=50)
fn.evaluate(result.best, digits.x_test, digits.y_test)
"""

from funcnet.checkpoint import load_model, save_model
from funcnet.datasets import (
    Dataset,
    check_dataset,
    download_cifar10,
    load_arrays,
    load_cifar10,
    load_digits,
    read_inputs,
)
from funcnet.gradcheck import (
    GradientCheck,
    check_gradients,
    numerical_gradient,
    relative_error,
    scaled_error,
)
from funcnet.layers import (
    affine_backward,
    affine_forward,
    affine_relu_backward,
    affine_relu_forward,
    relu_backward,
    relu_forward,
    with_custom_vjp,
)
from funcnet.losses import l2_penalty, softmax_loss, svm_loss
from funcnet.net import Layer, affine, loss, loss_and_grads, mlp, relu, serial
from funcnet.optim import Optimizer, adam, apply_updates, rmsprop, sgd, sgd_momentum
from funcnet.plots import plot_histories, plot_history
from funcnet.preprocess import Preprocess, no_preprocess, subtract_mean
from funcnet.schedules import exponential_decay
from funcnet.train import (
    BestModel,
    Evaluation,
    FitResult,
    History,
    Model,
    TrainState,
    evaluate,
    fit,
    init_train_state,
    make_train_step,
    predict,
    predict_scores,
)
from funcnet.tree import FrozenDict, freeze, unfreeze

__version__ = "0.1.0"

__all__ = [
    "BestModel",
    "Dataset",
    "Evaluation",
    "FitResult",
    "FrozenDict",
    "GradientCheck",
    "History",
    "Layer",
    "Model",
    "Optimizer",
    "Preprocess",
    "TrainState",
    "adam",
    "affine",
    "affine_backward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "apply_updates",
    "check_dataset",
    "check_gradients",
    "download_cifar10",
    "evaluate",
    "exponential_decay",
    "fit",
    "freeze",
    "init_train_state",
    "l2_penalty",
    "load_arrays",
    "load_cifar10",
    "load_digits",
    "load_model",
    "loss",
    "loss_and_grads",
    "make_train_step",
    "mlp",
    "no_preprocess",
    "numerical_gradient",
    "plot_histories",
    "plot_history",
    "predict",
    "predict_scores",
    "read_inputs",
    "relative_error",
    "relu",
    "relu_backward",
    "relu_forward",
    "rmsprop",
    "save_model",
    "scaled_error",
    "serial",
    "sgd",
    "sgd_momentum",
    "softmax_loss",
    "subtract_mean",
    "svm_loss",
    "unfreeze",
    "with_custom_vjp",
]
