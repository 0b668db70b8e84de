"""A shell completes commands, options, names and files by the script that funcnet prints."""

import shutil
import subprocess

import pytest
from command import run

from funcnet.optim import OPTIMIZERS


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_script_for_each_shell(shell):
    code, script, err = run("completion", shell)
    assert (code, err) == (0, "")
    for word in ("train", "--hidden-dims", "sgd_momentum"):
        assert word in script or word.removeprefix("--") in script


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """What bash makes of words, the last of which is not yet whole."""
    bash = shutil.which("bash") or pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "runs").mkdir()
    (folder / "rows.csv").touch()
    (folder / "script").write_text(run("completion", "bash")[1])

    def complete(*words):
        lines = (
            "source ./script",
            'COMP_WORDS=(funcnet "$@")',
            "COMP_CWORD=$#",
            "_shtab_funcnet",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        )
        done = subprocess.run(
            [bash, "-c", "\n".join(lines), "bash", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.stderr
        return set(done.stdout.split())

    return complete


def test_bash_completes_commands_options_and_names(completed):
    assert completed("tr") == {"train"}
    assert completed("train", "--learning-rate-d") == {"--learning-rate-decay"}
    assert completed("train", "--optimizer", "") == {*OPTIMIZERS}
    assert completed("train", "--recipe", "cifar10-c") == {"cifar10-cpu"}
    assert completed("evaluate", "r", "--split", "t") == {"train", "test"}


def test_bash_completes_folders_for_runs_and_files_for_data(completed):
    assert completed("evaluate", "r") == {"runs"}
    assert completed("train", "--dataset", "r") == {"runs", "rows.csv"}


def test_other_shells_are_refused_by_name():
    assert run("completion", "fish")[2].endswith("known: bash, tcsh, zsh\n")
