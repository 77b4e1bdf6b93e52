"""Forked kernels: what they compute is what new processes compute, and every way to end is noticed."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import nbformat
import pandas as pd
import pytest
from safetensors.torch import load_file

from mmsa_lib.experiments import warm_process
from mmsa_lib.experiments.notebook_process import worker_environment
from mmsa_lib.experiments.notebooks import execute, notebook_paths
from mmsa_lib.experiments.warm_process import WarmLauncher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
PACKAGE = Path(warm_process.__file__).resolve().parent.parent
SLEEP = "import time; time.sleep(300)"


def write(path, *cells):
    """A notebook with a parameters cell and ``cells``."""
    book = nbformat.v4.new_notebook()
    parameters = nbformat.v4.new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]})
    book.cells = [parameters, *[nbformat.v4.new_code_cell(source) for source in cells]]
    for position, cell in enumerate(book.cells):
        cell.id = f"cell-{position}"
    nbformat.write(book, path)
    return path


def printed(path):
    book = nbformat.read(path, as_version=4)
    return ["".join(output.get("text", "") for output in cell.get("outputs", [])).strip() for cell in book.cells]


@pytest.fixture(scope="module")
def launcher():
    """A server with all the libraries."""
    with WarmLauncher() as launcher:
        yield launcher


@pytest.fixture(scope="module")
def light():
    """A server that starts faster."""
    with WarmLauncher(imports=("json",)) as launcher:
        assert launcher.warm, launcher.reason
        yield launcher


SEEN = [
    "import ctypes, hashlib, logging, os, signal, sys, warnings\nimport h5py, matplotlib, numpy, pandas, scipy.stats",
    "import seaborn, sklearn.metrics, torch, torch._dynamo, transformers\nfrom tqdm.auto import tqdm",
    # The place in the process tree, the test at hand and the connection file differ from run to run.
    "varying, run = {'JPY_PARENT_PID', 'PYTEST_CURRENT_TEST'}, os.path.dirname(os.getcwd())\n"
    "digest = lambda text: hashlib.sha256(text.encode()).hexdigest()[:8]  # a log is no place for what they say\n"
    "told = {k: digest(v.replace(run, '')) for k, v in os.environ.items() if k not in varying}\n"
    "print(*sorted(told.items()), sep='\\n')\n"
    "getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p\n"
    "print(getenv(b'MMSA_LIB_TRIAL'), getenv(b'JUPYTER_RUNTIME_DIR'))\n"
    "print(int(os.environ['JPY_PARENT_PID']) == os.getppid())",
    "def plain(words): return ['CONNECTION' if word.endswith('.json') else word for word in words]\n"
    "print(plain(sys.argv), plain(sys.orig_argv), sys.path, sys.flags, sys._xoptions, sys.executable, sep='\\n')\n"
    "print(__name__, sorted(vars(sys.modules['__main__']))[:30], os.getcwd(), os.listdir(), sep='\\n')",
    "print([(s.name, str(signal.getsignal(s)).split(' at ')[0]) for s in signal.Signals])\n"
    "print(sorted(map(int, os.listdir('/proc/self/fd'))))\n"
    "print(os.getpgid(0) == os.getsid(0) == os.getpid(), sys.getrecursionlimit(), sys.stdin.read())\n"
    "print(len(os.listdir('/proc/self/task')), torch.get_num_threads(), torch.get_num_interop_threads())",
    "print(pandas.describe_option(_print_desc=False))",
    "print(*sorted(f'{k}: {v}' for k, v in matplotlib.rcParams.items()), sep='\\n')\n"
    "print(numpy.get_printoptions(), tqdm.__module__, torch.get_default_dtype(), torch.is_grad_enabled())",
    "filters = {(action, kind.__name__, str(module)) for action, _, kind, module, _ in warnings.filters}\n"
    "print(*sorted(filters), sep='\\n')",
    "loggers = {'root': logging.root, **logging.root.manager.loggerDict}\n"
    "for name in sorted(loggers):\n"
    "    for handler in getattr(loggers[name], 'handlers', []):\n"
    "        if name.partition('.')[0] in ('root', 'torch', 'transformers', 'huggingface_hub', 'pooch'):\n"
    "            print(name, type(handler).__name__, getattr(handler, 'stream', None) is sys.stderr)",
    "import pickle\nclass Point:\n    x = 1\n    def __eq__(self, other): return self.x == other.x\n"
    "print(pickle.dumps(Point()), pickle.loads(pickle.dumps(Point())) == Point())",
    "import multiprocessing, subprocess\n"
    "def double(x): return 2 * x\n"
    "with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(double, range(4)))\n"
    "with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-3]))\n"
    "print(subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"MMSA_LIB_TRIAL\"])'],"
    " capture_output=True, text=True).stdout)",
    "os.system('echo from a child'); print(input.__module__)",
    "torch.manual_seed(seed); numpy.random.seed(seed)\n"
    "layer = torch.nn.GRU(3, 4, batch_first=True); x = torch.randn(2, 5, 3); layer(x)[0].sum().backward()\n"
    "print(layer.weight_hh_l0.grad.double().sum().item().hex(), numpy.random.rand().hex())",
    "pandas.DataFrame({'a': numpy.arange(100), **{f'column {i}': 1.5 for i in range(30)}})",
    "import matplotlib.pyplot as plt\nplt.plot(numpy.cumsum(numpy.arange(30)));",
    "from mmsa_lib.figures.style import use_style\nuse_style()\nseaborn.histplot(x=numpy.arange(40) % 7)",
    "torch.arange(3)",
]


def test_a_forked_kernel_shows_the_bytes_of_a_new_one(tmp_path, launcher):
    path = write(tmp_path / "a.ipynb", *SEEN)
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "MMSA_LIB_TRIAL": "a value"}
    assert launcher.warm, launcher.reason
    for name, start in (("cold", None), ("warm", launcher), ("again", launcher)):
        result = execute(path, {"seed": 5}, tmp_path / f"{name}.ipynb", environment=environment, launcher=start)
        assert result.ok, result.failure
    for name in ("warm", "again"):
        for cold, warm in zip(printed(tmp_path / "cold.ipynb"), printed(tmp_path / f"{name}.ipynb"), strict=True):
            assert warm == cold
        assert (tmp_path / f"{name}.ipynb").read_bytes() == (tmp_path / "cold.ipynb").read_bytes()
    outputs = [o for c in nbformat.read(tmp_path / "warm.ipynb", as_version=4).cells for o in c.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_a_training_gives_the_same_files(tmp_path, launcher):
    (path,) = notebook_paths(["06_train"])
    parameters = {
        "method": "text_only",
        "data": {"samples": [48, 24, 32], "dims": [12, 8, 8], "length": 6},
        "config": {"max_epochs": 2},
        "protocols": ["frames"],
    }
    for name, start in (("cold", None), ("warm", launcher)):
        environment = {"OMP_NUM_THREADS": "1", "MMSA_LIB_RUNS": str(tmp_path / name)}
        result = execute(path, parameters, tmp_path / f"{name}.ipynb", environment=environment, launcher=start)
        assert result.ok, result.failure
    shown = [(tmp_path / f"{name}.ipynb").read_text().replace(str(tmp_path / name), "") for name in ("warm", "cold")]
    assert shown[0] == shown[1]  # but for where the run lies
    cold, warm = ({p.relative_to(root): p for p in files(root)} for root in (tmp_path / "cold", tmp_path / "warm"))
    assert cold.keys() == warm.keys()
    names = {place.name for place in cold}
    assert {"metrics.csv", "history.csv", "predictions.h5", "model.safetensors"} <= names, names
    for place, file in cold.items():
        assert content(file) == content(warm[place]), place


def content(file):
    """What a file of a run says, without the times and places that differ from run to run."""
    if file.suffix == ".csv":
        return pd.read_csv(file).drop(columns="seconds", errors="ignore").to_csv()
    if file.suffix == ".safetensors":
        return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}
    if file.suffix == ".h5":
        found = {}
        with h5py.File(file) as opened:
            opened.visititems(
                lambda name, node: found.update({name: node[()].tobytes()} if hasattr(node, "dtype") else {})
            )
        assert found
        return found
    return file.read_bytes() if file.name == "config.json" else None


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_unseeded_draws_differ_between_kernels_as_between_processes(tmp_path, launcher):
    path = write(
        tmp_path / "a.ipynb",
        "import random, numpy, scipy.stats, torch, uuid, tempfile",
        "print(random.random())",
        "print(numpy.random.rand())",
        "print(numpy.random.default_rng().random(), uuid.uuid4())",
        "print(scipy.stats.norm.rvs())",
        "print(torch.rand(1).item())",
        "print(torch.nn.Linear(1, 1).weight.item())",
        "print(tempfile.mktemp())",
    )
    for name in ("one", "two"):
        assert execute(path, {}, tmp_path / f"{name}.ipynb", launcher=launcher).ok
    one, two = printed(tmp_path / "one.ipynb"), printed(tmp_path / "two.ipynb")
    assert all(first and first != second for first, second in zip(one[2:], two[2:], strict=True))


def test_a_run_is_forked_from_the_server(tmp_path, launcher):
    cell = "import os, sys\nprint('transformers' in sys.modules, open(f'/proc/{os.getppid()}/cmdline').read())"
    path = write(tmp_path / "a.ipynb", cell)
    assert launcher.warm
    assert launcher.reason == ""
    result = execute(path, {}, tmp_path / "out.ipynb", launcher=launcher)
    loaded, parent = printed(result.output)[1].split(" ", 1)
    assert loaded == "True"
    assert "mmsa_lib.experiments.warm_server" in parent


@pytest.mark.parametrize(
    ("victim", "error", "said"),
    [
        ("os.getpid()", "DeadKernelError", "died"),
        ("os.getppid()", "WorkerDied", "exit code -9"),
        ("server", "WorkerDied", "the server of kernels ended"),
    ],
)
def test_whatever_is_killed_is_reported_and_the_next_run_works(tmp_path, light, victim, error, said):
    path = write(
        tmp_path / "a.ipynb",
        "import os, signal\nserver = int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1])",
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{os.getppid()}}')",
        f"os.kill({victim}, signal.SIGKILL)\n{SLEEP}",
    )
    result = execute(path, {}, tmp_path / "out.ipynb", launcher=light, timeout=120)
    assert (result.failure.cell, result.failure.error) == (4, error)
    assert said in result.failure.message
    assert not (tmp_path / "out.ipynb").exists()
    assert all(_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())
    good = write(tmp_path / "good.ipynb", "print(seed)")
    assert execute(good, {"seed": 3}, tmp_path / "good.out.ipynb", launcher=light).ok
    assert light.warm


def test_a_killed_run_leaves_its_neighbour_alone(tmp_path, light):
    mark = tmp_path / "mark"
    dies = write(tmp_path / "a.ipynb", "import os, signal; os.kill(os.getppid(), signal.SIGKILL); " + SLEEP)
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.1)\nprint('alive')"
    lives = write(tmp_path / "b.ipynb", wait)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, lives, {}, tmp_path / "b.out.ipynb", launcher=light)
        assert execute(dies, {}, launcher=light).failure.error == "WorkerDied"
        mark.touch()
        assert running.result().ok
    assert printed(tmp_path / "b.out.ipynb")[1] == "alive"


def test_an_exception_and_an_early_exit_are_reported_as_in_a_new_process(tmp_path, light):
    raises = write(tmp_path / "a.ipynb", "def f():\n    raise ValueError('no\\nluck')\nf()", "print('after')")
    leaves = write(tmp_path / "b.ipynb", "import sys; sys.exit(0)", "y = 2")
    for path, expected in ((raises, "ValueError"), (leaves, "SystemExit")):
        cold, warm = (execute(path, {"seed": 1}, tmp_path / "out.ipynb", launcher=start) for start in (None, light))
        assert warm.failure == cold.failure
        assert (warm.failure.cell, warm.failure.error) == (2, expected)


def test_what_is_left_to_the_end_of_the_kernel_is_done(tmp_path, light):
    """Exit handlers run, threads are waited for, and files that nobody closed are written, as in a new process."""
    path = write(
        tmp_path / "a.ipynb",
        f"import atexit, pathlib, sys, threading, time\nfolder = pathlib.Path({str(tmp_path)!r})",
        "atexit.register((folder / 'handler').write_text, 'x')",
        "def late():\n    time.sleep(1)\n    (folder / 'thread').write_text('x')",
        "threading.Thread(target=late).start()",
        "file = open(folder / 'file', 'w'); file.write('x')",
        "sys.kept = open(folder / 'kept', 'w'); sys.kept.write('x')",
        "class Last:\n    def __del__(self, path=folder / 'finalizer'): path.write_text('x')",
        "last = Last(); last.me = last",
    )
    names = ("handler", "thread", "file", "kept", "finalizer")
    for start in (None, light):
        assert execute(path, {}, launcher=start).ok
        for name in names:
            assert (tmp_path / name).read_text() == "x", name
            (tmp_path / name).unlink()


def test_a_notebook_that_takes_too_long_is_stopped_with_all_it_started(tmp_path, light):
    pids = tmp_path / "pids"
    cell = (
        "import os, subprocess, pathlib, time\nchild = subprocess.Popen(['sleep', '300'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}} {{child.pid}}')\ntime.sleep(300)"
    )
    path = write(tmp_path / "a.ipynb", cell)
    for seconds in (4, 8, 24, 60):
        result = execute(path, {}, tmp_path / "out.ipynb", timeout=seconds, launcher=light)
        if pids.exists():
            break
    assert (result.failure.cell, result.failure.error) == (2, "Timeout")
    assert result.failure.message == f"not finished after {seconds} s"
    assert all(_gone(int(pid)) for pid in pids.read_text().split())


@pytest.mark.parametrize("end", ["kill", "close"])
def test_no_process_outlives_whoever_started_it(tmp_path, end):
    pids = tmp_path / "pids"
    cell = (
        "import os, pathlib, time\nserver = open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1]\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}} {{server}}')\ntime.sleep(300)"
    )
    path = write(tmp_path / "a.ipynb", cell)
    code = (
        "import sys, threading\nfrom mmsa_lib.experiments.notebooks import execute\n"
        "from mmsa_lib.experiments.warm_process import WarmLauncher\nlauncher = WarmLauncher(imports=())\n"
        f"run = lambda: print(execute({str(path)!r}, launcher=launcher).failure, flush=True)\n"
        "thread = threading.Thread(target=run); thread.start(); sys.stdin.read(); launcher.close(); thread.join()"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 3)
    if end == "kill":
        driver.kill()
    output, _ = driver.communicate(timeout=60)
    assert ("WorkerDied" in output) == (end == "close")
    assert all(_gone(int(pid)) for pid in pids.read_text().split())


def test_parallel_runs_have_their_own_folders_variables_and_values(tmp_path, light):
    path = write(
        tmp_path / "a.ipynb",
        "import os, pathlib, time\npathlib.Path('mark').write_text(str(seed)); time.sleep(0.3)",
        "print(seed, pathlib.Path('mark').read_text(), os.listdir(), os.environ['MMSA_LIB_TRIAL'])",
    )

    def run(seed):
        environment = {"MMSA_LIB_TRIAL": f"number {seed}"}
        return execute(path, {"seed": seed}, tmp_path / f"{seed}.ipynb", environment=environment, launcher=light)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(1, 7)))
    assert [result.failure for result in results] == [None] * 6
    lines = [printed(tmp_path / f"{seed}.ipynb")[3] for seed in range(1, 7)]
    assert lines == [f"{seed} {seed} ['mark'] number {seed}" for seed in range(1, 7)]


def test_variables_that_imports_may_have_read_get_a_server_of_their_own(tmp_path):
    (tmp_path / "trial_module.py").write_text("import os\nseen = os.environ.get('TRIAL')\n")
    path = write(tmp_path / "a.ipynb", "import os, trial_module, trial_module as t; print(t.seen, os.environ['TRIAL'])")
    with WarmLauncher(("trial_module",), {"PYTHONPATH": str(tmp_path), "TRIAL": "usual"}) as launcher:
        for given, expected in (({}, "usual"), ({"TRIAL": "other"}, "other"), ({}, "usual")):
            assert execute(path, {}, tmp_path / "out.ipynb", environment=given, launcher=launcher).ok
            assert printed(tmp_path / "out.ipynb")[1] == f"{expected} {expected}"
        assert len(launcher._servers) == 2


def test_a_changed_module_of_the_library_is_seen_by_the_next_run(tmp_path, monkeypatch):
    copy = tmp_path / "checkout" / "mmsa_lib"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / "errors.py"
    path = write(tmp_path / "a.ipynb", "import mmsa_lib.errors as e; print(e.__file__, getattr(e, 'TRIAL', 'old'))")
    code = (
        "import sys, pathlib\nfrom mmsa_lib.experiments.notebooks import execute\n"
        "from mmsa_lib.experiments.warm_process import WarmLauncher\n"
        "with WarmLauncher(('mmsa_lib.errors',)) as launcher:\n"
        "    assert launcher.warm, launcher.reason\n"
        f"    assert execute({str(path)!r}, {{}}, {str(tmp_path / 'before.ipynb')!r}, launcher=launcher).ok\n"
        f"    with open({str(module)!r}, 'a') as file: file.write('\\nTRIAL = 1\\n')\n"
        f"    assert execute({str(path)!r}, {{}}, {str(tmp_path / 'after.ipynb')!r}, launcher=launcher).ok\n"
        "    assert launcher.warm, launcher.reason\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed(tmp_path / "before.ipynb")[1] == f"{module} old"
    assert printed(tmp_path / "after.ipynb")[1] == f"{module} 1"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "1 threads run",
        ),
        (
            "raise ValueError('broken\\nmodule')",
            "trial_module cannot be imported in advance: ValueError: broken module",
        ),
        ("import os\nos._exit(3)", "the server of kernels ended"),
    ],
)
def test_runs_start_cold_where_forking_would_not_be_safe(tmp_path, source, reason):
    (tmp_path / "trial_module.py").write_text(source)
    path = write(tmp_path / "a.ipynb", "import os\nprint(open(f'/proc/{os.getppid()}/cmdline').read())")
    with WarmLauncher(("trial_module",), {"PYTHONPATH": str(tmp_path)}) as launcher:
        assert execute(path, {}, tmp_path / "out.ipynb", launcher=launcher).ok
        assert reason in launcher.reason
        assert "\n" not in launcher.reason
        assert not launcher.warm
    assert "notebook_worker.py" in printed(tmp_path / "out.ipynb")[1]


def test_a_server_that_is_killed_while_it_starts_is_replaced(tmp_path):
    starts = tmp_path / "starts"
    (tmp_path / "trial_module.py").write_text(
        f"import os, signal\nwith open({str(starts)!r}, 'a') as file: file.write('x')\n"
        f"if os.path.getsize({str(starts)!r}) <= 3: os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = write(tmp_path / "a.ipynb", "import os\nprint(open(f'/proc/{os.getppid()}/cmdline').read())")
    with WarmLauncher(("trial_module",), {"PYTHONPATH": str(tmp_path)}) as launcher:
        for worker in ("notebook_worker.py", "warm_server"):  # two starts are killed, then one
            assert execute(path, {}, tmp_path / "out.ipynb", launcher=launcher).ok
            assert worker in printed(tmp_path / "out.ipynb")[1]
        assert launcher.warm
    assert starts.read_text() == "xxxx"


def test_other_systems_start_cold_without_a_server(monkeypatch):
    monkeypatch.setattr(warm_process.sys, "platform", "darwin")
    monkeypatch.setattr(warm_process, "ServerProcess", lambda *_: pytest.fail("a server was started"))
    with WarmLauncher() as launcher:
        assert not launcher.warm
        assert "on Linux only, not on darwin" in launcher.reason


def test_a_missing_module_is_left_to_the_notebook_that_needs_it(tmp_path):
    path = write(tmp_path / "a.ipynb", "import no_such_module")
    with WarmLauncher(("no_such_module",)) as launcher:
        assert launcher.warm, launcher.reason
        assert execute(path, {}, launcher=launcher).failure.error == "ModuleNotFoundError"


def test_a_closed_launcher_starts_no_server(tmp_path):
    launcher = WarmLauncher(())
    launcher.close()
    assert launcher.reason == "the launcher is closed"
    assert execute(write(tmp_path / "a.ipynb", "print(1)"), {}, tmp_path / "out.ipynb", launcher=launcher).ok
    assert not launcher._servers


def test_start_up_files_and_kernels_of_the_user_are_not_inherited(tmp_path, monkeypatch):
    for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, "x")
    assert not {"JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP"} & worker_environment(tmp_path, {}).keys()


def _wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def _gone(pid):
    """Whether process ``pid`` ends (a zombie has ended)."""

    def ended():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    _wait_for(ended)
    return True
