"""Several devices: what they tell each other, what that comes to, and what the same bits cost.

    python -m tests.benchmarks.devices                 # on paper
    python -m tests.benchmarks.devices --measure       # on two cores, with nothing else running

On paper: the bytes that are all-reduced in a step, from the program that is compiled for eight
devices, beside 4 bytes for each parameter, of which a ring sends and receives twice as many; and
how long a step would take on 1 to 1,024 devices, its batch divided among them: products at a stated
rate, all-reduce at a stated bandwidth with a latency for each of its rounds, nothing overlapping.
From where twice the devices save less than a tenth of the time it does not pay.

Measured: a step of one process with two cores, of two processes with a core each, and of either in
eight shards, with one thread, which come to the same bits. All train one net on the same batches.
"""

import argparse
import itertools
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from typing import Any

RATE = 50e12  # multiplications and additions a second that a device does
LINKS = {"400 Gbit/s": 50e9, "NVLink": 450e9}  # bytes a second, each way
LATENCY = 5e-6  # seconds of a round
NETS = {  # inputs, hidden layers, classes, and a batch
    "assignment": (3072, (100,) * 5, 10, 4096),
    "256 M": (5632, (8192,) * 4, 1000, 65_536),
}
MEASURED = (3072, (512, 512), 10, 4096)
ITEM = {"f32": 4, "f16": 2, "bf16": 2, "s32": 4, "f64": 8, "u32": 4, "pred": 1}


def parameters(inputs: int, hidden: tuple[int, ...], classes: int) -> int:
    """How many weights and biases a net has."""
    sizes = (inputs, *hidden, classes)
    return sum(a * b + b for a, b in itertools.pairwise(sizes))


def compiled_bytes(inputs: int, hidden: tuple[int, ...], classes: int, batch: int) -> int:
    """The bytes that the program of a step for eight devices all-reduces."""
    import jax
    import jax.numpy as jnp

    import funcnet as fn
    from funcnet.parallel import Spread
    from funcnet.preprocess import no_preprocess
    from funcnet.program import Numbers, Program
    from funcnet.step import Given, Held, init_train_state, step_on

    spread = Spread(fn.device_mesh(8), None)
    net, optimizer = fn.mlp(hidden, classes), fn.sgd(1e-3)
    program = Program(net, optimizer, fn.softmax_loss, None, False, spread=spread)

    def step(key: Any, x: Any, y: Any, rows: Any) -> Any:
        state = init_train_state(net, optimizer, (inputs,), key=key)
        given = Given(key, x, y, None, no_preprocess(None), Numbers(None, None, None))
        held = Held(state.params, state.state, state.opt_state, state.step)
        return step_on(held, rows, given, program)

    whole, cut = spread._at(), spread._at("data")

    def shape(dims: tuple[int, ...], dtype: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)

    args = (
        jax.eval_shape(lambda: jax.random.key(0)),
        shape((batch, inputs), jnp.float32, whole),
        shape((batch,), jnp.int32, whole),
        shape((batch,), jnp.int32, cut),
    )
    text = jax.jit(step).lower(*args).compile().as_text()
    total = 0
    for line in re.findall(r"= (.*?) all-reduce\(", text):
        for dtype, dims in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", line):
            total += ITEM[dtype] * math.prod(int(n) for n in dims.split(",") if n)
    return total


def on_paper(name: str) -> None:
    """Print what a net's step sends, and how long it would take."""
    inputs, hidden, classes, batch = NETS[name]
    count = parameters(inputs, hidden, classes)
    found = compiled_bytes(inputs, hidden, classes, batch)
    print(f"\n{name}: {count:,} parameters, batches of {batch:,}")
    print(
        f"all-reduced {found:,} bytes, {found / (4 * count):.4f} of 4 for each parameter; "
        f"sent by each device at most {2 * found:,}"
    )
    work = 6 * count * batch / RATE
    for link, bandwidth in LINKS.items():
        print(f"  {link}: devices, step in ms, times as fast as one")
        before, pays = math.inf, None
        for power in range(11):
            devices = 2**power
            exchange = 2 * found * (devices - 1) / devices / bandwidth
            seconds = work / devices + exchange + 2 * power * LATENCY
            print(f"    {devices:5} {1000 * seconds:10.3f} {work / seconds:8.1f}")
            if pays is None and seconds > 0.9 * before:
                pays = devices // 2
            before = seconds
        print(f"    pays up to {pays or devices} devices")


def steps(reproducible: int | None, seconds: float) -> dict[str, Any]:
    """Train for about so long on all devices; how long a step takes, and what it comes to."""
    import hashlib

    import jax
    import numpy as np

    import funcnet as fn

    inputs, hidden, classes, batch = MEASURED
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8 * batch, inputs)).astype("f"), rng.integers(0, classes, 8 * batch)
    names = tuple(map(str, range(classes)))
    data = fn.Dataset(x, y, x[:0], y[:0], x[:0], y[:0], names)
    net, optimizer = fn.mlp(hidden, classes), fn.sgd_momentum(1e-3)
    mesh = None if jax.device_count() == 1 and reproducible is None else fn.device_mesh()
    times: list[float] = []
    seen: dict[int, str] = {}

    def callback(epoch: int, state: Any, _: Any) -> bool:
        times.append(time.perf_counter())
        leaves = map(np.asarray, jax.tree.leaves(state.params))
        seen[epoch] = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
        return times[-1] - times[0] > seconds

    options: dict[str, Any] = {"eval_every": None, "preprocess": None, "callback": callback}
    options |= {"mesh": mesh, "reproducible": reproducible, "batch_size": batch}
    fn.fit(net, optimizer, data, key=jax.random.key(0), epochs=1000, **options)
    own = np.diff(times)[1:]  # the first epoch compiles
    return {"ms": float(1000 * np.median(own) / 8), "bits": seen[5][:16]}


def measured(cores: list[list[int]], reproducible: int | None, seconds: float) -> dict[str, Any]:
    """What processes with these cores each measure; that of the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.benchmarks.devices", "--worker", str(len(cores))]
    command += ["--port", str(port), "--seconds", str(seconds)]
    command += ["--reproducible", str(reproducible or 0)]
    env = os.environ | ({"PJRT_NPROC": "1"} if reproducible else {})
    processes = [
        subprocess.Popen(
            [*command, "--id", str(number), "--cores", *map(str, own)],
            stdout=subprocess.PIPE,
            env=env,
        )
        for number, own in enumerate(cores)
    ]
    outs = [process.communicate()[0] for process in processes]
    return json.loads(outs[0].splitlines()[-1])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--measure", action="store_true")
    add("--seconds", type=float, default=20.0)
    for name in ("--worker", "--port", "--id", "--reproducible"):
        add(name, type=int, help=argparse.SUPPRESS)
    add("--cores", type=int, nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        os.sched_setaffinity(0, args.cores)
        import funcnet as fn

        if args.worker > 1:
            fn.join_processes(f"127.0.0.1:{args.port}", args.worker, args.id)
        print(json.dumps(steps(args.reproducible or None, args.seconds)), flush=True)
        return
    if not args.measure:
        import jax

        jax.config.update("jax_num_cpu_devices", 8)
        for name in NETS:
            on_paper(name)
        return
    first, second = sorted(os.sched_getaffinity(0))[:2]
    one, two = [[first, second]], [[first], [second]]
    base = measured(one, None, args.seconds)
    print(f"{'':38} ms a step, of the first line, the bits after 40 steps")
    for name, cores, shards in (
        ("1 process, 2 cores", one, None),
        ("2 processes, a core each", two, None),
        ("1 process, 2 cores, 8 shards", one, 8),
        ("2 processes, a core each, 8 shards", two, 8),
    ):
        found = base if (cores, shards) == (one, None) else measured(cores, shards, args.seconds)
        print(f"{name:38} {found['ms']:9.2f} {found['ms'] / base['ms']:17.2f}   {found['bits']}")


if __name__ == "__main__":
    main()
