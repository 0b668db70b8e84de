"""How fast funcnet is beside others, and what it costs: python -m tests.benchmarks --list

Nothing here is imported by the library or collected by pytest. `problem` is what every
implementation is given; `ours` and the `*_peers` are the implementations; `training` checks that
they agree and takes their times in turn; the other files hold the workloads that are not a
training; `workloads` names them all, `report` prints.
"""
