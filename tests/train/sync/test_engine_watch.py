"""How busy the engine is: vLLM's text is read, counters survive a restart, and a dead engine is no reading."""

import asyncio

import pytest

from rlm_env.llm.base import EngineUnavailable
from rlm_env.train.sync.engine_watch import COUNTERS, GAUGES, EngineWatch, parse_statistics

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="tiny-rlm"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="a }} b"}} 2.0
vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 9.0
vllm:kv_cache_usage_perc{{engine="0",model_name="tiny-rlm"}} 0.25
vllm:prefix_cache_queries_total{{engine="0",model_name="tiny-rlm"}} {queries}
vllm:prefix_cache_queries_created{{engine="0",model_name="tiny-rlm"}} 1.7e+09
vllm:prefix_cache_hits_total{{engine="0",model_name="tiny-rlm"}} {hits}
vllm:generation_tokens_total{{engine="0",model_name="tiny-rlm"}} {queries}
vllm:request_success_total{{engine="0",finished_reason="stop"}} 3.0
process_cpu_seconds_total 4.0
vllm:num_preemptions_total{{engine="0"}} NaN
vllm:broken
"""


def text(running=1.0, queries=0.0, hits=0.0):
    return TEXT.format(running=running, queries=queries, hits=hits)


def test_the_text_of_one_engine_and_of_two():
    one = parse_statistics(text(3.0, 100.0, 25.0))
    assert one == {
        "num_requests_running": 3.0,
        "num_requests_waiting": 2.0,
        "kv_cache_usage_perc": 0.25,
        "prefix_cache_queries": 100.0,
        "prefix_cache_hits": 25.0,
        "generation_tokens": 100.0,
    }
    both = parse_statistics(text(3.0, 100.0) + text(4.0, 10.0).replace('engine="0"', 'engine="1"'))
    assert (both["num_requests_running"], both["prefix_cache_queries"]) == (7.0, 110.0)
    assert both["kv_cache_usage_perc"] == 0.25  # a share does not add up


async def test_gauges_are_averaged_and_counters_are_what_was_added():
    texts = iter([text(1.0, 1000.0, 10.0), text(3.0, 1100.0, 60.0), text(2.0, 1200.0, 60.0)])

    async def read():
        return next(texts)

    watch = EngineWatch(read)
    assert watch.take() == {}
    await watch.look()
    await watch.look()
    found = watch.take()
    assert found["inference/num_requests_running/mean"] == 2.0
    assert found["inference/num_requests_running/max"] == 3.0
    assert found["inference/prefix_cache_hit_rate"] == 0.5
    assert found["inference/generation_tokens"] == 100.0
    await watch.look()
    assert watch.take()["inference/generation_tokens"] == 100.0


async def test_an_engine_that_was_started_again_counts_from_0_and_a_dead_one_not_at_all():
    texts = iter([text(queries=1000.0), EngineUnavailable("dead"), text(queries=30.0)])

    async def read():
        found = next(texts)
        if isinstance(found, Exception):
            raise found
        return found

    watch = EngineWatch(read)
    for _ in range(3):
        await watch.look()
    assert watch.take()["inference/generation_tokens"] == 30.0


async def test_it_reads_until_the_end():
    readings, enough = 0, asyncio.Event()

    async def read():
        nonlocal readings
        readings += 1
        if readings == 3:
            enough.set()
        return text()

    async with EngineWatch(read, seconds=0.001).watching():
        await asyncio.wait_for(enough.wait(), 10)
    before = readings
    await asyncio.sleep(0.01)
    assert readings == before


async def test_a_reading_that_cannot_work_is_not_passed_over():
    async def read(engine):
        raise AssertionError

    with pytest.raises(TypeError, match="engine"):
        async with EngineWatch(read, seconds=0.001).watching():
            await asyncio.sleep(0.01)


@pytest.mark.vllm
async def test_the_real_engine_has_all_of_them(train_engine):
    await train_engine.completions({"model": train_engine.policy.name, "prompt": [[1, 2, 3]], "max_tokens": 4})
    found = parse_statistics(await train_engine.statistics())
    assert set(found) == {*GAUGES, *COUNTERS}
    assert found["generation_tokens"] >= 1
