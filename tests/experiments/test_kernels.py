"""Kernels: forked ones compute what new ones compute, and every way in which either ends is noticed."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import nbformat
import pandas as pd
import pytest
from safetensors.torch import load_file
from sweep_files import gone, printed, wait_for, write_book

from mmsa_lib.experiments import kernels
from mmsa_lib.experiments.kernels import Launcher, worker_environment
from mmsa_lib.experiments.notebooks import execute, notebook_paths
from mmsa_lib.experiments.warm import DEFAULT_IMPORTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
PACKAGE = Path(kernels.__file__).resolve().parent.parent
FAMILY = (
    "import os, pathlib, signal, time\nkernel, server, worker = os.getpid(), os.getppid(), os.environ['JPY_PARENT_PID']"
)
SLEEP = "time.sleep(300)"
IS_FORKED = "print('forkserver' in open(f'/proc/{os.getppid()}/cmdline').read())"
IS_PREPARED = "import sys; print('wave' in sys.modules)"


def told(tmp_path, *names):
    """A cell that writes process ids to a file, and how to read them once they are there."""
    path = tmp_path / "pids"
    words = " ".join(f"{{{name}}}" for name in names)
    part, whole = repr(f"{path}.part"), repr(str(path))
    cell = f"pathlib.Path({part}).write_text(f'{words}')\nos.rename({part}, {whole})"
    return cell, lambda: [int(pid) for pid in path.read_text().split()] if path.exists() else []


def outputs(tmp_path, *cells, **options):
    """What each of ``cells`` prints when a notebook of them is executed."""
    result = execute(write_book(tmp_path / "a.ipynb", *cells), {}, tmp_path / "out.ipynb", **options)
    assert result.ok, result.failure
    return printed(tmp_path / "out.ipynb")[2:]


@pytest.fixture(scope="module")
def launcher():
    """Kernels with all the libraries."""
    with Launcher(DEFAULT_IMPORTS) as launcher:
        assert launcher.reason == ""
        yield launcher


@pytest.fixture(scope="module", params=[None, ["wave"]], ids=["cold", "warm"])
def light(request):
    """Kernels that are new, and forked ones whose server starts faster."""
    with Launcher(request.param) as launcher:
        launcher.forks = request.param is not None
        assert launcher.reason == ""
        yield launcher


SEEN = [
    "import ctypes, hashlib, os, signal, sys, warnings\nimport h5py, matplotlib, numpy, pandas, scipy.stats\n"
    "import seaborn, sklearn.metrics, torch, torch._dynamo, transformers\nfrom tqdm.auto import tqdm",
    # The place in the process tree, the test at hand and the connection file differ from run to run.
    "varying, run = {'JPY_PARENT_PID', 'PYTEST_CURRENT_TEST'}, os.path.dirname(os.getcwd())\n"
    "digest = lambda text: hashlib.sha256(text.encode()).hexdigest()[:8]  # a log is no place for what they say\n"
    "seen = {k: digest(v.replace(run, '')) for k, v in os.environ.items() if k not in varying}\n"
    "print(*sorted(seen.items()), sep='\\n')\n"
    "getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p\n"
    "print(getenv(b'MMSA_LIB_TRIAL'), getenv(b'JUPYTER_RUNTIME_DIR'))",
    "print(['CONNECTION' if word.endswith('.json') else word for word in sys.argv], sys.path, sys.flags)\n"
    "print(__name__, sorted(vars(sys.modules['__main__']))[:30], sys.executable, os.getcwd(), os.listdir(), sep='\\n')",
    "print([(s.name, str(signal.getsignal(s)).split(' at ')[0]) for s in signal.Signals])\n"
    "print(os.getpgid(0) == os.getsid(0) == os.getpid(), sys.getrecursionlimit(), sys.stdin.read())\n"
    "print(len(os.listdir('/proc/self/task')), torch.get_num_threads(), torch.get_num_interop_threads())",
    "print(pandas.describe_option(_print_desc=False).replace('UTF-8', 'utf-8'))",
    "print(*sorted(f'{k}: {v}' for k, v in matplotlib.rcParams.items()), sep='\\n')\n"
    "print(numpy.get_printoptions(), tqdm.__module__, torch.get_default_dtype(), torch.is_grad_enabled())",
    "filters = {(action, kind.__name__, str(module)) for action, _, kind, module, _ in warnings.filters}\n"
    "print(*sorted(filters), sep='\\n')",
    "import pickle\nclass Point:\n    x = 1\n    def __eq__(self, other): return self.x == other.x\n"
    "print(pickle.dumps(Point()), pickle.loads(pickle.dumps(Point())) == Point())",
    "import multiprocessing, subprocess\n"
    "def double(x): return 2 * x\n"
    "with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(double, range(4)))\n"
    "with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-3]))\n"
    "with multiprocessing.get_context('forkserver').Pool(1) as pool: print(pool.map(abs, [-3]))\n"
    "print(multiprocessing.current_process().name, subprocess.run([sys.executable, '-c', 'import os; print("
    "os.environ[\"MMSA_LIB_TRIAL\"])'], capture_output=True, text=True).stdout)",
    "os.system('echo from a child'); print(input.__module__)",
    "torch.manual_seed(seed); numpy.random.seed(seed)\n"
    "layer = torch.nn.GRU(3, 4, batch_first=True); x = torch.randn(2, 5, 3); layer(x)[0].sum().backward()\n"
    "print(layer.weight_hh_l0.grad.double().sum().item().hex(), numpy.random.rand().hex())",
    "pandas.DataFrame({'a': numpy.arange(100), **{f'column {i}': 1.5 for i in range(30)}})",
    "import matplotlib.pyplot as plt\nplt.plot(numpy.cumsum(numpy.arange(30)));",
    "from mmsa_lib.figures.style import use_style\nuse_style()\nseaborn.histplot(x=numpy.arange(40) % 7)",
    "torch.arange(3)",
]  # fmt: skip


def test_a_forked_kernel_shows_the_bytes_of_a_new_one(tmp_path, launcher):
    path = write_book(tmp_path / "a.ipynb", *SEEN)
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "MMSA_LIB_TRIAL": "a value"}
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
    data = {"samples": [48, 24, 32], "dims": [12, 8, 8], "length": 6}
    parameters = {"method": "text_only", "data": data, "config": {"max_epochs": 2}, "protocols": ["frames"]}
    for name, start in (("cold", None), ("warm", launcher)):
        environment = {"OMP_NUM_THREADS": "1", "MMSA_LIB_RUNS": str(tmp_path / name)}
        result = execute(path, parameters, tmp_path / f"{name}.ipynb", environment=environment, launcher=start)
        assert result.ok, result.failure
    shown = [(tmp_path / f"{name}.ipynb").read_text().replace(str(tmp_path / name), "") for name in ("warm", "cold")]
    assert shown[0] == shown[1]  # but for where the run lies
    cold, warm = (
        {path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("cold", "warm")
    )
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


def test_unseeded_draws_differ_between_kernels_as_between_processes(tmp_path, launcher):
    draws = [
        "random.random()", "numpy.random.rand()", "numpy.random.default_rng().random()", "uuid.uuid4()",
        "scipy.stats.norm.rvs()", "torch.rand(1).item()", "torch.nn.Linear(1, 1).weight.item()", "tempfile.mktemp()",
    ]  # fmt: skip
    imports = "import random, numpy, scipy.stats, torch, uuid, tempfile, os"
    cells = imports, *(f"print({draw})" for draw in draws), IS_FORKED
    one, two = (outputs(tmp_path, *cells, launcher=launcher)[1:] for _ in range(2))
    assert one[-1] == two[-1] == "True"
    assert all(first and first != second for first, second in zip(one[:-1], two[:-1], strict=True))


@pytest.mark.parametrize(
    ("victim", "error", "said"),
    [("kernel", "DeadKernelError", "died"), ("worker", "WorkerDied", "exit code -9"),
     ("server", "DeadKernelError", "died")],
)  # fmt: skip
def test_whatever_is_killed_is_reported_and_the_next_run_works(tmp_path, light, victim, error, said):
    if victim == "server" and not light.forks:
        pytest.skip("a new kernel has none")
    cell, pids = told(tmp_path, "kernel", "worker", "server")
    path = write_book(tmp_path / "a.ipynb", FAMILY, cell, f"os.kill(int({victim}), signal.SIGKILL)\n{SLEEP}")
    result = execute(path, {}, tmp_path / "out.ipynb", launcher=light, timeout=120)
    assert (result.failure.cell, result.failure.error, result.failure.killed) == (5, error, True)
    assert said in result.failure.message
    assert not (tmp_path / "out.ipynb").exists()
    assert gone(pids()[0], *(pids()[1:] if victim == "worker" else []))
    assert outputs(tmp_path, "import os", IS_FORKED, IS_PREPARED, launcher=light)[1:] == [str(light.forks)] * 2
    assert light.reason == ""


def test_a_killed_run_leaves_its_neighbour_alone(tmp_path, light):
    mark = tmp_path / "mark"
    dies = write_book(tmp_path / "a.ipynb", f"{FAMILY}\nos.kill(int(worker), signal.SIGKILL)\n{SLEEP}")
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.1)\nprint('alive')"
    lives = write_book(tmp_path / "b.ipynb", wait)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, lives, {}, tmp_path / "b.out.ipynb", launcher=light)
        assert execute(dies, {}, launcher=light).failure.error == "WorkerDied"
        mark.touch()
        assert running.result().ok
    assert printed(tmp_path / "b.out.ipynb")[2] == "alive"


def test_what_is_left_to_the_end_of_the_kernel_is_done(tmp_path, light):
    """Exit handlers run, threads are waited for, and files that nobody closed are written."""
    path = write_book(
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
    assert execute(path, {}, launcher=light).ok
    for name in ("handler", "thread", "file", "kept", "finalizer"):
        assert (tmp_path / name).read_text() == "x", name


def test_a_notebook_that_takes_too_long_is_stopped_with_all_it_started(tmp_path, light):
    cell, pids = told(tmp_path, "kernel", "worker", "server", "child.pid")
    path = write_book(
        tmp_path / "a.ipynb",
        f"{FAMILY}\nimport subprocess\nchild = subprocess.Popen(['sleep', '300'])\n{cell}\n{SLEEP}",
    )
    for seconds in (4, 8, 24, 60):
        result = execute(path, {}, tmp_path / "out.ipynb", timeout=seconds, launcher=light)
        if pids():
            break
    assert (result.failure.cell, result.failure.error) == (3, "Timeout")
    assert result.failure.message == f"not finished after {seconds} s"
    assert gone(*pids())


@pytest.mark.parametrize(("end", "imports"), [("kill", None), ("kill", ()), ("close", ())])
def test_no_process_outlives_whoever_started_it(tmp_path, end, imports):
    cell, pids = told(tmp_path, "kernel", "worker", *(["server"] if imports is not None else []))
    path = write_book(tmp_path / "a.ipynb", f"{FAMILY}\n{cell}\n{SLEEP}")
    code = (
        "import sys, threading\nfrom mmsa_lib.experiments.notebooks import execute\n"
        f"from mmsa_lib.experiments.kernels import Launcher\nlauncher = Launcher({imports})\n"
        "def run():\n"
        f"    try: print(execute({str(path)!r}, launcher=launcher).failure)\n"
        "    except Exception as error: print(error, flush=True)\n"
        "thread = threading.Thread(target=run); thread.start(); sys.stdin.read(); launcher.close(); thread.join()"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(pids)
    if end == "kill":
        driver.kill()
    output, _ = driver.communicate(timeout=60)
    assert output == ("the run was interrupted\n" if end == "close" else "")
    assert gone(*pids())


def test_parallel_runs_have_their_own_folders_variables_and_values(tmp_path, light):
    path = write_book(
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
    lines = [printed(tmp_path / f"{seed}.ipynb")[4] for seed in range(1, 7)]
    assert lines == [f"{seed} {seed} ['mark'] number {seed}" for seed in range(1, 7)]


def trial(tmp_path, source):
    """A module of one's own, and a launcher's arguments to import it in advance."""
    (tmp_path / "trial_module.py").write_text(source)
    return ("trial_module",), {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])}


def test_variables_that_imports_may_have_read_get_a_server_of_their_own(tmp_path):
    imports, variables = trial(tmp_path, "import os\nseen = os.environ.get('TRIAL')\n")
    cells = "import os, trial_module, trial_module as t; print(t.seen, os.environ['TRIAL'])", IS_FORKED
    with Launcher(imports, {**variables, "TRIAL": "usual"}) as launcher:
        for given, expected in (({}, "usual"), ({"TRIAL": "other"}, "other"), ({}, "usual")):
            found = outputs(tmp_path, *cells, environment=given, launcher=launcher)
            assert found == [f"{expected} {expected}", "True"]


def test_changed_modules_are_seen_by_the_next_run(tmp_path, monkeypatch):
    """One of the library, one of the user's own."""
    copy = tmp_path / "checkout" / "mmsa_lib"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    library, own = copy / "errors.py", tmp_path / "checkout" / "own_module.py"
    own.write_text("")
    imports = "import os, own_module, mmsa_lib.errors"
    show = f"{imports}\nprint(*[getattr(m, 'TRIAL', m.__file__) for m in (mmsa_lib.errors, own_module)])"
    path = write_book(tmp_path / "a.ipynb", show, IS_FORKED)
    code = (
        "from mmsa_lib.experiments.kernels import Launcher\nfrom mmsa_lib.experiments.notebooks import execute\n"
        "with Launcher(('mmsa_lib.errors', 'own_module')) as launcher:\n"
        f"    for name in ({str(own)!r}, {str(library)!r}, None):\n"
        f"        out = {str(tmp_path)!r} + f'/{{name and name[-9:-3]}}.ipynb'\n"
        f"        result = execute({str(path)!r}, {{}}, out, launcher=launcher)\n"
        "        assert result.ok, result.failure\n"
        "        if name: open(name, 'a').write('\\nTRIAL = 1\\n')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed(tmp_path / "module.ipynb")[2:] == [f"{library} {own}", "True"]
    assert printed(tmp_path / "errors.ipynb")[2:] == [f"{library} 1", "True"]
    assert printed(tmp_path / "None.ipynb")[2:] == ["1 1", "True"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "1 threads"),
        ("raise ValueError('bad\\nmodule')", "trial_module cannot be imported in advance: ValueError: bad module"),
        ("import os\nos._exit(3)", "the server of kernels ended"),
    ],
)  # fmt: skip
def test_runs_start_cold_where_forking_would_not_be_safe(tmp_path, source, reason):
    with Launcher(*trial(tmp_path, source)) as launcher:
        assert outputs(tmp_path, "import os", IS_FORKED, launcher=launcher) == ["", "False"]
        assert reason in launcher.reason
        assert "\n" not in launcher.reason


def test_a_server_that_is_killed_while_it_starts_is_replaced(tmp_path):
    starts = tmp_path / "starts"
    arguments = trial(
        tmp_path,
        f"import os, signal\nwith open({str(starts)!r}, 'a') as file: file.write('x')\n"
        f"if os.path.getsize({str(starts)!r}) <= 3: os.kill(os.getpid(), signal.SIGKILL)",
    )
    with Launcher(*arguments) as launcher:
        assert outputs(tmp_path, "import os", IS_FORKED, launcher=launcher) == ["", "True"]
        assert launcher.reason == ""
    assert starts.read_text() == "xxxx"


def test_other_systems_start_cold(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels.sys, "platform", "darwin")
    with Launcher(()) as launcher:
        assert "on Linux only, not on darwin" in launcher.reason
        assert outputs(tmp_path, "import os", IS_FORKED, launcher=launcher) == ["", "False"]


def test_a_missing_module_is_left_to_the_notebook_that_needs_it(tmp_path):
    path = write_book(tmp_path / "a.ipynb", "import no_such_module")
    with Launcher(("no_such_module",)) as launcher:
        assert launcher.reason == ""
        assert execute(path, {}, launcher=launcher).failure.error == "ModuleNotFoundError"


def test_start_up_files_and_kernels_of_the_user_are_not_inherited(tmp_path, monkeypatch):
    names = {"JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP"}
    for name in names:
        monkeypatch.setenv(name, "x")
    assert not names & worker_environment(tmp_path, {}).keys()
