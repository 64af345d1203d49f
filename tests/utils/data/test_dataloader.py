"""The DataLoader: arguments, orders, seeds, workers, errors in them and their end."""

import gc
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import gpunn
from gpunn.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    get_worker_info,
)

HAS_FORK = "fork" in multiprocessing.get_all_start_methods()
needs_fork = pytest.mark.skipif(not HAS_FORK, reason="datasets of this file need fork")


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = set(multiprocessing.active_children())
    yield
    gc.collect()
    assert set(multiprocessing.active_children()) <= before


class Numbers(Dataset):
    """Sample i is i, unless something else is asked for."""

    def __init__(self, size=12, sample=lambda i: i):
        self.size, self.sample = size, sample

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.sample(index)


class Stream(IterableDataset):
    """The numbers below `sizes[id of the worker]`, with 100 times the id."""

    def __init__(self, *sizes, length=None):
        self.sizes, self.length = sizes, length

    def __iter__(self):
        info = get_worker_info()
        worker = 0 if info is None else info.id
        return iter(range(100 * worker, 100 * worker + self.sizes[worker]))

    def __len__(self):
        if self.length is None:
            raise TypeError("no length")
        return self.length


def lists(loader):
    return [batch.tolist() for batch in loader]


# --- orders and seeds, against PyTorch ----------------------------------------------------

ORDERS = {
    "sequential": {"batch_size": 4},
    "shuffled": {"batch_size": 4, "shuffle": True},
    "drop last": {"batch_size": 5, "shuffle": True, "drop_last": True},
    "single samples": {"batch_size": None, "shuffle": True},
    "workers": {"batch_size": 3, "shuffle": True, "num_workers": 2},
    "persistent": {"shuffle": True, "num_workers": 1, "persistent_workers": True},
    "generator": {"batch_size": 4, "shuffle": True, "generator": True},
    "replacement": {"batch_size": 4, "sampler": True},
    "replacement with workers": {"batch_size": 4, "sampler": True, "num_workers": 1},
}


@needs_fork
@pytest.mark.parametrize("name", ORDERS)
def test_orders_and_later_draws_are_pytorchs(name):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def epochs(lib):
        options = dict(ORDERS[name])
        lib.manual_seed(2)
        data = lib.utils.data.TensorDataset(lib.arange(23), lib.arange(23) * 2)
        if options.get("generator"):
            options["generator"] = lib.Generator().manual_seed(5)
        if options.get("sampler"):
            options["sampler"] = lib.utils.data.RandomSampler(data, replacement=True)
        loader, found = lib.utils.data.DataLoader(data, **options), [lib.rand(1).item()]
        for _ in range(2):
            found += [[(a.tolist(), b.tolist()), lib.rand(1).item()] for a, b in loader]
        next(iter(loader))
        return [*found, lib.rand(1).item(), len(loader)]

    assert epochs(gpunn) == epochs(torch)


@needs_fork
def test_workers_are_seeded_as_pytorchs():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def draws(lib):
        def sample(i):
            info = lib.utils.data.get_worker_info()
            numbers = info.seed - lib.initial_seed(), random.random(), float(np.random.rand())
            return (i, info.id, info.num_workers, info.seed, len(info.dataset), *numbers)

        lib.manual_seed(11)
        loader = lib.utils.data.DataLoader(
            Numbers(8, sample), 2, num_workers=2, collate_fn=list, persistent_workers=True
        )
        return [list(loader), list(loader), lib.rand(1).item()]

    assert draws(gpunn) == draws(torch)


@needs_fork
def test_workers_draw_pytorchs_numbers():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def draws(lib):
        lib.manual_seed(1)
        data = Numbers(6, lambda i: lib.rand(2).tolist())
        return list(lib.utils.data.DataLoader(data, 2, num_workers=2, collate_fn=list))

    assert draws(gpunn) == draws(torch)


# --- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_workers": -1}, ValueError, "num_workers option should be non-negative"),
        ({"timeout": -1}, ValueError, "timeout option should be non-negative"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor option could only be specified in"),
        ({"num_workers": 1, "prefetch_factor": -1}, ValueError, "prefetch_factor option should be"),
        ({"persistent_workers": True}, ValueError, "persistent_workers option needs num_workers"),
        ({"sampler": [0], "shuffle": True}, ValueError, "sampler option is mutually exclusive"),
        ({"batch_sampler": [[0]], "shuffle": True}, ValueError, "batch_sampler option is mutually"),
        ({"batch_sampler": [[0]], "batch_size": 2}, ValueError, "batch_sampler option is mutually"),
        ({"batch_sampler": [[0]], "drop_last": True}, ValueError, "batch_sampler option is mutu"),
        ({"batch_size": None, "drop_last": True}, ValueError, "disables auto-batching"),
        ({"batch_size": 0}, ValueError, "batch_size should be a positive integer value"),
        ({"multiprocessing_context": "spawn"}, ValueError, "can only be used with multi-process"),
        ({"multiprocessing_context": "no", "num_workers": 1}, ValueError, "valid start method in"),
        ({"multiprocessing_context": 3, "num_workers": 1}, TypeError, "a valid context object"),
    ],
)
def test_argument_errors(options, error, message):
    with pytest.raises(error, match=message):
        DataLoader(Numbers(), **options)


@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}], ids=str
)
def test_streams_have_no_sampler(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"IterableDataset: expected unspecified {name} option"):
        DataLoader(Stream(3), **options)


def test_an_empty_dataset_cannot_be_shuffled_but_read():
    assert list(DataLoader(Numbers(0))) == []
    with pytest.raises(ValueError, match="num_samples should be a positive integer"):
        DataLoader(Numbers(0), shuffle=True)


def test_attributes():
    sampler = RandomSampler(Numbers())
    loader = DataLoader(Numbers(), 5, sampler=sampler, num_workers=1, drop_last=True)
    assert (loader.batch_size, loader.num_workers, loader.prefetch_factor) == (5, 1, 2)
    assert loader.sampler is sampler is loader.batch_sampler.sampler
    assert (loader.drop_last, loader.pin_memory, loader.timeout) == (True, False, 0)
    assert DataLoader[int] is not DataLoader
    for name in ("batch_size", "sampler", "dataset", "drop_last", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoad"):
            setattr(loader, name, None)
    loader.collate_fn = list
    assert next(iter(DataLoader(Numbers(), 2, collate_fn=list))) == [0, 1]


def test_more_workers_than_cores_warn():
    with pytest.warns(UserWarning, match="This DataLoader will create 10000 worker processes"):
        DataLoader(Numbers(), num_workers=10000)


def test_batch_sampler_and_single_samples():
    assert lists(DataLoader(Numbers(), batch_sampler=[[3, 1], [2]])) == [[3, 1], [2]]
    assert list(DataLoader(Numbers(3), batch_size=None)) == [0, 1, 2]
    (sample,) = DataLoader([np.ones(2)], batch_size=None)
    assert sample.tolist() == [1, 1]
    assert list(DataLoader({"a": 1, "b": 2}, batch_size=None, sampler=["b", "a"])) == [2, 1]


def test_getitems_is_used():
    class Batched(Numbers):
        def __getitems__(self, indices):
            return [i + 100 for i in indices]

    assert lists(DataLoader(Batched(3), 2)) == [[100, 101], [102]]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=needs_fork)])
def test_iterators_are_independent_and_not_picklable(workers):
    loader = DataLoader(Numbers(4), 2, num_workers=workers)
    one, other = iter(loader), iter(loader)
    assert [next(i).tolist() for i in (one, other, one)] == [[0, 1], [0, 1], [2, 3]]
    assert len(one) == 2
    with pytest.raises(StopIteration):
        next(one)
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        one.__getstate__()


# --- streams --------------------------------------------------------------------------------


@needs_fork
@pytest.mark.parametrize(
    ("sizes", "drop_last", "expected"),
    [
        ((4, 4), False, [[0, 1, 2], [100, 101, 102], [3], [103]]),
        ((4, 4), True, [[0, 1, 2], [100, 101, 102]]),
        ((1, 7), False, [[0], [100, 101, 102], [103, 104, 105], [106]]),
        ((0, 2), False, [[100, 101]]),
        ((0, 0), False, []),
    ],
)
def test_streams_are_divided_by_the_dataset(sizes, drop_last, expected):
    loader = DataLoader(
        Stream(*sizes), 3, num_workers=2, drop_last=drop_last, persistent_workers=True
    )
    assert lists(loader) == expected
    assert lists(loader) == expected


def test_a_stream_in_this_process():
    assert lists(DataLoader(Stream(5), 2)) == [[0, 1], [2, 3], [4]]
    assert lists(DataLoader(Stream(5), 2, drop_last=True)) == [[0, 1], [2, 3]]
    assert list(DataLoader(Stream(2), None)) == [0, 1]


def test_length_of_a_stream():
    assert [len(DataLoader(Stream(5, length=5), 2, drop_last=d)) for d in (False, True)] == [3, 2]
    assert len(DataLoader(Stream(5, length=5), None)) == 5
    with pytest.raises(TypeError, match="no length"):
        len(DataLoader(Stream(5), 2))
    loader = DataLoader(Stream(5, length=1))
    assert len(loader) == 1
    with pytest.warns(UserWarning, match="was reported to be 1 .* but 2 samples have been fetched"):
        batches = iter(loader)
        next(batches), next(batches)


# --- workers --------------------------------------------------------------------------------


@needs_fork
def test_large_batches_arrive_whole_and_can_be_written():
    data = Numbers(10, lambda i: (np.full((100, 1000), i, np.float32), gpunn.full((3, 9000), i)))
    kept = list(DataLoader(data, 2, num_workers=2))
    for number, (a, b) in enumerate(kept):
        assert a.shape == (2, 100, 1000) and b.dtype is gpunn.int64
        for row in range(2):
            assert (a[row] == 2 * number + row).all() and (b[row] == 2 * number + row).all()
        a += 1
        assert a.storage_offset() == 0
    assert float(kept[0][0][0, 0, 0]) == 1


@needs_fork
def test_a_slow_worker_does_not_change_the_order():
    data = Numbers(8, lambda i: time.sleep(0.1 * (i % 4 < 2)) or i)
    assert sum(lists(DataLoader(data, 2, num_workers=2)), []) == list(range(8))


@needs_fork
def test_out_of_order_yields_what_is_ready():
    go = multiprocessing.get_context("fork").Event()

    def sample(i):
        if i == 0:
            go.wait(60)
        return i

    batches = iter(DataLoader(Numbers(6, sample), 1, num_workers=2, in_order=False))
    # 0 and 2 are the first worker's, which has no room for more; all others are the second's.
    assert [next(batches).item() for _ in range(4)] == [1, 3, 4, 5]
    go.set()
    assert [batch.item() for batch in batches] == [0, 2]


@needs_fork
def test_workers_stay_with_persistent_workers_only():
    def pids(loader):
        return {pid for batch in loader for pid in batch}

    data = Numbers(8, lambda i: os.getpid())
    loader = DataLoader(data, 2, num_workers=2, persistent_workers=True, collate_fn=list)
    first = pids(loader)
    assert len(first) == 2 and pids(loader) == first
    next(iter(loader))  # an epoch left early
    assert pids(loader) == first
    loader = DataLoader(data, 2, num_workers=2, collate_fn=list)
    assert not pids(loader) & pids(loader)


@needs_fork
def test_an_epoch_left_early_does_not_mix_with_the_next():
    loader = DataLoader(Numbers(20), 2, num_workers=2, persistent_workers=True, prefetch_factor=3)
    for stop in (1, 3, 0, 10):
        batches = iter(loader)
        assert [next(batches).tolist() for _ in range(stop)] == lists(loader)[:stop]


@needs_fork
def test_worker_init_fn_runs_after_seeding():
    def init(worker):
        get_worker_info().dataset.size = 100 + worker
        gpunn.manual_seed(5)

    data = Numbers(2, lambda i: (get_worker_info().dataset.size, gpunn.initial_seed()))
    loader = DataLoader(data, 1, num_workers=2, worker_init_fn=init, collate_fn=list)
    assert list(loader) == [[(100, 5)], [(101, 5)]]


@needs_fork
def test_large_tasks_and_large_answers_do_not_block_each_other():
    indices = list(range(200_000))
    data = Numbers(len(indices), lambda i: None)
    loader = DataLoader(
        data, batch_sampler=[indices] * 6, num_workers=1, collate_fn=lambda batch: "x" * 1_000_000
    )
    assert [len(text) for text in loader] == [1_000_000] * 6


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_start_methods(method):
    data = TensorDataset(gpunn.arange(8), gpunn.ones(8, 20_000))
    loader = DataLoader(data, 4, num_workers=1, multiprocessing_context=method)
    assert [(a.tolist(), b.sum().item()) for a, b in loader] == [
        ([0, 1, 2, 3], 80_000),
        ([4, 5, 6, 7], 80_000),
    ]
    context = multiprocessing.get_context(method)
    assert DataLoader(data, num_workers=1, multiprocessing_context=context).num_workers == 1


def test_spawn_without_importable_dataset():
    loader = DataLoader(Numbers(4), num_workers=1, multiprocessing_context="spawn")
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle.*lambda"):
        iter(loader)


# --- errors in workers ----------------------------------------------------------------------


class TwoPartError(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


def fail(error):
    def sample(i):
        if i == 3:
            raise error
        return i

    return sample


@needs_fork
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("boo"), ValueError, r"Caught ValueError in DataLoader worker process 1\.\nOri"),
        (KeyError("k"), KeyError, r"(?s)Caught KeyError in .*Traceback.*\n.*in sample.*'k'"),
        (TwoPartError(1, 2), RuntimeError, "Caught TwoPartError in DataLoader worker process 1"),
        (type("Local", (Exception,), {})(), RuntimeError, "Caught Local in DataLoader worker"),
        (StopIteration(), RuntimeError, r"(?s)Caught RuntimeError in .*dataset\[\[3\]\] raised"),
    ],
)
def test_an_error_has_its_type_and_traceback_and_the_epoch_goes_on(error, kind, message):
    batches = iter(DataLoader(Numbers(6, fail(error)), num_workers=2))
    assert [next(batches).item() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(kind, match=message) as caught:
        next(batches)
    assert "raise error" in str(caught.value)
    assert lists(batches) == [[4], [5]]


def test_stop_iteration_of_a_dataset_is_no_silent_end():
    with pytest.raises(RuntimeError, match=r"dataset\[\[3\]\] raised StopIteration"):
        list(DataLoader(Numbers(6, fail(StopIteration()))))


@needs_fork
def test_an_error_in_init_is_every_batchs():
    def init(worker):
        raise OSError("no disk")

    batches = iter(DataLoader(Numbers(), num_workers=1, worker_init_fn=init))
    for _ in range(2):
        with pytest.raises(OSError, match="no disk"):
            next(batches)


@needs_fork
def test_what_cannot_be_pickled_is_an_error():
    with pytest.raises(Exception, match="in DataLoader worker process 0(?s:.)*pickle"):
        next(iter(DataLoader([lambda: 1], num_workers=1, collate_fn=list)))


@needs_fork
@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda: os.kill(os.getpid(), 9), "was killed by signal SIGKILL"),
        (lambda: os._exit(3), "exited with code 3"),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_dead_worker_is_noticed(end, message, persistent):
    loader = DataLoader(
        Numbers(6, lambda i: end() if i == 3 else i), num_workers=2, persistent_workers=persistent
    )
    batches = iter(loader)
    found = rf"DataLoader worker \(pid\(s\) \d+\) exited unexpectedly: it {message}"
    with pytest.raises(RuntimeError, match=found):
        list(batches)
    with pytest.raises(RuntimeError, match="its workers have ended"):
        list(batches)
    again = iter(loader)  # a new epoch has new workers
    assert again is not batches and not set(again._processes) & set(batches._processes)


@needs_fork
def test_timeout():
    loader = DataLoader(Numbers(1, lambda i: time.sleep(60)), num_workers=1, timeout=0.2)
    batches = iter(loader)
    with pytest.raises(RuntimeError, match="DataLoader timed out after 0.2 seconds"):
        next(batches)
    batches._processes[0].kill()
    with pytest.raises(AssertionError, match="timeout needs num_workers > 0"):
        iter(DataLoader(Numbers(), timeout=1))


# --- the end of workers ---------------------------------------------------------------------


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_with_the_iterator(persistent):
    def large(i):
        return np.zeros(100_000), "x" * 200_000

    loader = DataLoader(Numbers(90, large), num_workers=2, persistent_workers=persistent)
    batches = iter(loader)
    next(batches)
    processes = batches._processes
    assert all(process.is_alive() for process in processes)
    other = iter(DataLoader(Numbers(), num_workers=1))  # forked while the pipes were open
    del batches, loader
    gc.collect()
    assert not any(process.is_alive() for process in processes)
    assert next(other).item() == 0


def script(text, **options):
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


LOOP = """
import os, sys, time
import numpy as np
from gpunn.utils.data import DataLoader, Dataset

class Data(Dataset):
    def __len__(self):
        return 1000
    def __getitem__(self, i):
        return np.full(50_000, i), os.getpid()

batches = iter(DataLoader(Data(), 2, num_workers=2, persistent_workers=True))
print(*{int(pid) for _ in range(2) for pid in next(batches)[1]}, flush=True)
"""


def ended(pids):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        alive = []
        for pid in pids:
            try:
                with open(f"/proc/{pid}/stat") as file:
                    alive.append(file.read().rpartition(")")[2].split()[0] != "Z")
            except OSError:
                pass
        if not any(alive):
            return True
        time.sleep(0.05)
    return False


@needs_fork
def test_the_end_of_a_script_is_quiet():
    process = script(LOOP)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert ended(map(int, out.split()))


@needs_fork
@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="reads /proc")
@pytest.mark.parametrize("signal", [9, 2])
def test_workers_end_with_a_killed_or_interrupted_loader(signal):
    process = script(LOOP + "time.sleep(60)\n")
    pids = list(map(int, process.stdout.readline().split()))
    process.send_signal(signal)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and len(pids) == 2
    assert ended(pids)
    assert "resource_tracker" not in err


@needs_fork
def test_interrupt_of_the_whole_group_is_quiet_in_workers():
    waiting = LOOP + "time.sleep(0.3)\nprint('ready', flush=True)\nfor batch in batches: pass\n"
    process = script(waiting.replace("return 1000", "return 10**9"), start_new_session=True)
    pids = list(map(int, process.stdout.readline().split()))
    process.stdout.readline()
    os.killpg(process.pid, 2)
    _, err = process.communicate(timeout=60)
    assert err.count("Traceback") == 1 and err.rstrip().endswith("KeyboardInterrupt")
    assert ended(pids)


@needs_fork
def test_descriptors_do_not_grow():
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("reads /proc")
    loader = DataLoader(Numbers(40, lambda i: np.zeros(20_000)), num_workers=1)
    list(loader)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        kept = list(loader)
    del kept
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


# --- progress -------------------------------------------------------------------------------


def test_progress_bar(capsys):
    before = threading.active_count()
    assert lists(DataLoader(Numbers(4), 2, progress=True)) == [[0, 1], [2, 3]]
    shown = capsys.readouterr().err
    assert "2/2" in shown and "batch/s" in shown
    assert list(DataLoader(Stream(2), None, progress=True)) == [0, 1]
    assert "2batch" in capsys.readouterr().err
    assert threading.active_count() <= before + 1  # tqdm's monitor


def test_progress_bar_in_a_notebook_without_widgets(capsys, monkeypatch):
    import tqdm.auto

    def no_widgets(*args, **kwargs):
        raise ImportError("IProgress not found. Please update jupyter and ipywidgets.")

    monkeypatch.setattr(tqdm.auto, "tqdm", no_widgets)
    assert lists(DataLoader(Numbers(2), 2, progress=True)) == [[0, 1]]
    assert "1/1" in capsys.readouterr().err
