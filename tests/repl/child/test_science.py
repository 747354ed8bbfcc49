"""numpy, scipy and sympy in a REPL: their numbers are numbers in an answer, and where there are no files, all of scipy
is there."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rlm_env.repl import ReplPool
from tests.repl.conftest import str_of
from tests.repl.levels import GUARD_FIRST, open_pool

pytestmark = [pytest.mark.identity, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=GUARD_FIRST)
async def loaded(request: pytest.FixtureRequest) -> AsyncIterator[ReplPool]:
    """A pool that has imported them, scipy where nothing could be imported later."""
    scipy = ("scipy",) if request.param == "sealed" else ()
    pool = await open_pool(request.param, preload=("numpy", *scipy, "sympy"))
    yield pool
    await pool.close()


NOT_FINITE = '{"a": ["nan", "inf", "nan", ["nan"]]}'
NUMBERS = [
    ("[np.int64(3), np.int64(4)]", "[3, 4]"),
    ("list(np.argsort([2, 1]))", "[1, 0]"),
    ("{'n': np.int64(3), 'ok': np.bool_(True), 'f': np.float32(0.5)}", '{"n": 3, "ok": true, "f": 0.5}'),
    ("{np.int64(3): 2}", '{"3": 2}'),
    ("[{np.int64(3): {np.int32(1): [np.uint8(2)]}}]", '[{"3": {"1": [2]}}]'),
    ("np.arange(3)", "[0, 1, 2]"),
    ("np.arange(2000)", str(list(range(2000)))),
    ("np.eye(2)", "[[1.0, 0.0], [0.0, 1.0]]"),
    ("[np.arange(2), (1, [np.int8(5)])]", "[[0, 1], [1, [5]]]"),
    ("np.int64(3)", "3"),
    ("np.float64(3.5)", "3.5"),
    ("np.str_('x')", "x"),
    ("np.ma.array([1, 2], mask=[0, 1])", "[1, null]"),
    ("np.array([1.5, np.nan, -np.inf])", '[1.5, "nan", "-inf"]'),
    ("{'a': [np.float32('nan'), np.float64('inf'), np.longdouble('nan'), np.array([np.nan])]}", NOT_FINITE),
    ("{np.float32('inf'): np.float32(0.5)}", '{"inf": 0.5}'),
    ("[sympy.nan, sympy.oo]", '["nan", "oo"]'),
    ("[np.longdouble(3), np.longdouble('0.5')]", "[3.0, 0.5]"),
    ("np.array([3], dtype=np.longdouble)", "[3.0]"),
    ("[sympy.Integer(3), sympy.Rational(1, 2), sympy.Float(0.5), sympy.true]", '[3, "1/2", 0.5, true]'),
    ("{sympy.Integer(3): sympy.Integer(4)}", '{"3": 4}'),
    ("sympy.Integer(7) ** 10000", str_of(7**10000)),
    ("[sympy.Integer(7) ** 10000]", f"[{str_of(7**10000)}]"),
    ("sympy.sqrt(2)", "sqrt(2)"),
]


async def test_numbers_of_numpy_and_sympy_are_what_they_are(loaded: ReplPool):
    async with loaded.open() as repl:
        await repl.run("import numpy as np, sympy")
        for code, content in NUMBERS:
            step = await repl.run(f"answer['content'] = {code}", timeout=30)
            assert (step.error, step.answer["content"]) == (None, content), code


SCIENCE = """
import numpy as np, scipy.linalg, scipy.stats, scipy.optimize, scipy.sparse.linalg, scipy.signal, scipy.interpolate
import scipy.spatial.distance, scipy.integrate, scipy.special, scipy.ndimage, scipy.cluster.hierarchy, numpy.polynomial
a = np.array([[2.0, 1.0], [1.0, 3.0]])
print(
    scipy.linalg.solve(a, [1, 2]).round(3).tolist(),
    round(scipy.stats.norm.cdf(0), 3),
    round(scipy.stats.ttest_ind([1, 2, 3], [2, 3, 4]).pvalue, 3),
    round(scipy.optimize.minimize(lambda x: (x[0] - 1) ** 2, [0.0]).x[0], 3),
    scipy.optimize.linprog([1, 1], A_ub=[[-1, -1]], b_ub=[-1]).fun,
    round(scipy.integrate.quad(lambda x: x, 0, 1)[0], 3),
    scipy.interpolate.interp1d([0, 1], [0, 2])(0.5).item(),
    round(scipy.spatial.distance.cosine([1, 0], [0, 1]), 3),
    scipy.sparse.linalg.spsolve(scipy.sparse.csc_matrix(a), [1, 2]).round(3).tolist(),
    len(scipy.signal.find_peaks([0, 1, 0, 2, 0])[0]),
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("loaded", ["sealed"], indirect=True)
async def test_sealed_has_the_parts_of_scipy(loaded: ReplPool):
    async with loaded.open() as repl:
        step = await repl.run(SCIENCE, timeout=60)
        assert step.error is None, step.error
        assert step.output == "[0.2, 0.6] 0.5 0.288 1.0 1.0 0.5 1.0 1.0 [0.2, 0.6] 2\n"
