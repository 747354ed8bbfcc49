"""What models write as a matter of course, and what needs no process and no file, works behind the sandbox."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rlm_env.repl import Repl, ReplPool
from tests.repl.conftest import echo
from tests.repl.levels import open_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=("guard", *(pytest.param(level, marks=pytest.mark.slow) for level in ("sealed", "jail"))),
)
async def open_repl(request: pytest.FixtureRequest) -> AsyncIterator[ReplPool]:
    pool = await open_pool(request.param)
    yield pool
    await pool.close()


@pytest_asyncio.fixture(loop_scope="module")
async def repl(open_repl: ReplPool) -> AsyncIterator[Repl]:
    async with open_repl.open(llm_batch=echo) as opened:
        yield opened


THREADS = {
    "ThreadPool": (
        "from multiprocessing.pool import ThreadPool\n"
        "with ThreadPool(4) as pool: print(pool.map(lambda q: llm_batch([q])[0], ['a', 'b']))",
        "['<a>', '<b>']\n",
    ),
    "multiprocessing.dummy": (
        "from multiprocessing.dummy import Pool\nwith Pool(2) as pool: print(pool.map(len, ['a', 'bc']))",
        "[1, 2]\n",
    ),
    "starmap, imap and apply_async": (
        "from multiprocessing.pool import ThreadPool\npool = ThreadPool(3)\n"
        "print(pool.starmap(pow, [(2, 3), (3, 2)]), list(pool.imap(str, range(3))))\n"
        "print(pool.apply_async(sum, ([1, 2],)).get(5))\n"
        "pool.close(); pool.join()",
        "[8, 9] ['0', '1', '2']\n3\n",
    ),
    "an exception in a ThreadPool": (
        "from multiprocessing.pool import ThreadPool\nwith ThreadPool(2) as pool:\n"
        "    try: pool.map(lambda x: 1 // x, [1, 0])\n    except ZeroDivisionError as error: print(error)",
        "integer division or modulo by zero\n",
    ),
    "locks and queues of multiprocessing": (
        "import multiprocessing, threading\nqueue, lock = multiprocessing.Queue(), multiprocessing.Lock()\n"
        "with lock: threading.Thread(target=queue.put, args=('x',)).start()\n"
        "print(queue.get(timeout=5), multiprocessing.Event().is_set(), multiprocessing.Semaphore(2).acquire())",
        "x False True\n",
    ),
    "concurrent.futures": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: print(list(pool.map(lambda q: llm_batch([q])[0], 'ab')))",
        "['<a>', '<b>']\n",
    ),
}
BY_IDENTITY = {"ThreadPool", "locks and queues of multiprocessing"}
"""What has other ways of the kernel: semaphores and shared memory. The rest is the same code whoever runs it."""


@pytest.mark.parametrize(
    "idiom", [pytest.param(name, marks=pytest.mark.identity) if name in BY_IDENTITY else name for name in THREADS]
)
async def test_pools_of_threads(open_repl: ReplPool, idiom: str):
    code, output = THREADS[idiom]
    async with open_repl.open(llm_batch=echo) as repl:
        step = await repl.run(code, timeout=20)
        assert (step.output, step.error) == (output, None)


async def test_a_pool_of_processes_is_still_refused_with_words(open_repl: ReplPool):
    async with open_repl.open() as repl:
        step = await repl.run("import multiprocessing as m; m.get_context('fork').Process(target=int).start()")
        assert "single process" in step.error


@pytest.mark.identity
async def test_streams_can_be_reconfigured_and_printed_to_by_their_other_names(repl: Repl):
    code = (
        "import sys\nsys.stdout.reconfigure(encoding='utf-8', line_buffering=True)\n"
        "sys.stderr.reconfigure(errors='x'); sys.stdin.reconfigure(encoding='utf-8')\n"
        "print('a', file=sys.__stdout__); print('b', file=sys.__stderr__); print('c')"
    )
    step = await repl.run(code)
    assert (step.output, step.error) == ("a\nb\nc\n", None)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("llm_batch = llm_batch(['x'])", marks=pytest.mark.identity),
        "del llm_batch",
        "llm_batch = None",
        "globals().pop('llm_batch')",
    ],
)
async def test_llm_batch_comes_back(repl: Repl, code: str):
    await repl.run(code)
    assert (await repl.run("llm_batch(['a'])")).output == "['<a>']\n"


async def test_a_coroutine_that_was_not_awaited_is_told_without_a_place_of_the_host(repl: Repl):
    code = "async def f(): pass\nf(); None\nimport gc; gc.collect(); None"
    step = await repl.run(code)
    step = await repl.run("import warnings\nasync def g(): pass\nx = g()\nx = None")
    everything = step.output + (await repl.run("1")).output
    assert "rlm_env" not in everything
    assert "worker.py" not in everything


async def test_a_warning_of_the_cell_still_names_it(repl: Repl):
    step = await repl.run("import warnings; warnings.warn('mind this')")
    assert "<cell 1>:1: UserWarning: mind this" in step.output


@pytest.mark.parametrize(
    "code",
    [
        "import builtins\nclass Same:\n    def __eq__(s, o): raise ValueError\nbuiltins.max = Same()",
        "import builtins\nclass Endless:\n    def __eq__(s, o):\n        while True: pass\nbuiltins.max = Endless()",
        "class E(Exception):\n    __traceback__ = property(lambda s: 1 / 0)\nraise E",
        "class E(Exception):\n    __class__ = property(lambda s: 1 / 0)\nraise E",
        "class E(Exception):\n    def __getattribute__(s, n): raise MemoryError\nraise E",
        "class M(type):\n    __name__ = property(lambda s: 1 / 0)\nclass E(Exception, metaclass=M): pass\nraise E",
        "class M(type):\n    __name__ = property(lambda s: 1 / 0)\nclass E(BaseException, metaclass=M): pass\n"
        "class V:\n    def __str__(s): raise E\nanswer['content'] = V()",
    ],
)
async def test_the_models_own_operators_are_not_called_after_the_cell(repl: Repl, code: str):
    await repl.run("kept = 1")
    step = await repl.run(code, timeout=2)
    assert not step.state_lost, step.error
    assert (await repl.run("max(kept, 0)", timeout=2)).output == "1\n"


MAPS = """
import mmap
maps = [mmap.mmap(-1, 8192), mmap.mmap(-1, 8192, access=mmap.ACCESS_WRITE), mmap.mmap(-1, 8192, mmap.MAP_SHARED)]
maps += [mmap.mmap(fileno=-1, length=8192, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE)]
for m in maps: m[:2] = b'ok'
print([m[:3] for m in maps] == [b'ok\\0'] * 4, isinstance(maps[0], mmap.mmap), mmap.mmap.__name__)
try: mmap.mmap(-1, 8192, access=mmap.ACCESS_READ)[0] = 1
except TypeError: print('read-only')
"""


async def test_maps_of_no_file_work(repl: Repl):
    step = await repl.run(MAPS)
    assert step.output == "True True mmap\nread-only\n", step.error


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[("guard", 0), ("guard", 64), ("jail", 64)])
async def large_repl(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Repl, bool]]:
    """A REPL for large packages, and whether it has a temporary directory."""
    level, tmp_mb = request.param
    async with await open_pool(level, tmp_mb=tmp_mb) as pool, pool.open() as repl:
        await repl.run("import tempfile; here = tempfile.gettempdir()")
        yield repl, tmp_mb > 0


STORED = {
    "torch": "torch.save(torch.ones(3), here + '/t.pt'); print(torch.load(here + '/t.pt').sum().item())",
    "transformers": "transformers.PretrainedConfig(bos_token_id=3.0).save_pretrained(here)\n"
    "print(transformers.PretrainedConfig.from_pretrained(here).bos_token_id)",
    "datasets": "datasets.Dataset.from_dict({'a': [3.0]}).map(lambda row: row).save_to_disk(here + '/d')\n"
    "print(datasets.load_from_disk(here + '/d')[0]['a'])",
}


@pytest.mark.slow
@pytest.mark.parametrize("package", STORED)
async def test_large_packages_can_be_imported_and_used(large_repl, package: str):
    """They ask for a temporary directory, whether there is one or not."""
    pytest.importorskip(package)
    repl, has_directory = large_repl
    use = STORED[package] if has_directory else f"print({package}.__version__ and 3.0)"
    step = await repl.run(f"import {package}\n{use}", timeout=120)
    assert step.error is None, step.error
    assert "3.0\n" in step.output


@pytest.mark.identity
async def test_a_temporary_file_is_refused_with_words(repl: Repl):
    step = await repl.run("import tempfile; tempfile.TemporaryFile()")
    assert "The sandbox denies this" in step.error
    assert (await repl.run("tempfile.gettempdir()")).output == "'/tmp'\n"
