"""tools/system_packages.sh with stand-ins for apt: installs what is missing, and never fails where it can't."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "system_packages.sh"

pytestmark = pytest.mark.skipif(not (SCRIPT.exists() and shutil.which("bash")), reason="needs a checkout and bash")


@pytest.fixture
def machine(tmp_path):
    """Run the script as user ``uid`` where ``there`` is installed; apt succeeds in the attempts in ``works``."""
    for tool in ("bash", "env", "tail", "mktemp", "rm"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    calls = tmp_path / "calls"

    def run(*names, uid=0, there=(), apt=True, works=(1,)):
        fakes = {
            "id": f"echo {uid}",
            "dpkg-query": f'case " {" ".join(there)} " in *" ${{@: -1}} "*) echo -n installed;; *) exit 1;; esac',
        }
        if apt:
            fakes["apt-get"] = (
                f'echo "$@" >>{calls}; [ "$1" = update ] && exit 0; n=0\n'
                f"while read -r line; do case $line in install*) n=$((n + 1));; esac; done <{calls}\n"
                f'case " {" ".join(map(str, works))} " in *" $n "*) exit 0;; *) echo "no such host"; exit 100;; esac'
            )
        for name, body in fakes.items():
            (tmp_path / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
            (tmp_path / name).chmod(0o755)
        environment = {**os.environ, "PATH": str(tmp_path)}
        done = subprocess.run([SCRIPT, *names], env=environment, capture_output=True, text=True, check=False)
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_only_what_is_missing_is_installed(machine):
    done, calls = machine("chromium", "slurm-wlm", there=["chromium"])
    assert done.returncode == 0, done.stderr
    assert len(calls) == 1
    assert calls[0].startswith("install ")
    assert calls[0].endswith(" slurm-wlm")
    assert "chromium" not in calls[0]


def test_nothing_happens_when_all_is_there(machine):
    done, calls = machine("chromium", there=["chromium"])
    assert (done.returncode, done.stderr, calls) == (0, "", [])


def test_package_lists_are_fetched_when_the_first_attempt_fails(machine):
    done, calls = machine("chromium", works=[2])
    assert done.returncode == 0
    assert [call.split()[0] for call in calls] == ["install", "update", "install"]
    assert "could not be installed" not in done.stderr


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"uid": 1000}, "only root can install them; missing: chromium"),
        ({"apt": False}, "no apt-get here"),
        ({"works": []}, "no such host\nsystem packages: could not be installed: chromium"),
    ],
    ids=["no root", "no apt", "no source"],
)
def test_what_cannot_be_installed_is_said_and_no_failure(machine, where, reason):
    done, _ = machine("chromium", **where)
    assert done.returncode == 0
    assert reason in done.stderr


def test_a_call_without_names_is_an_error(machine):
    done, _ = machine()
    assert done.returncode == 2
    assert "at least one" in done.stderr
