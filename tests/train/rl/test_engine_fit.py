"""What can be known of an engine before it is started: its window, its GPUs, what its arguments ask of them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rlm_env.runs.errors import ConfigError  # noqa: E402
from rlm_env.runs.options import EngineOptions  # noqa: E402
from rlm_env.train.rl import engine_fit  # noqa: E402
from rlm_env.train.rl.config import TrainConfig  # noqa: E402
from rlm_env.train.rl.engine_fit import check_gpus, check_parser, check_servers, gpus_here, own_window  # noqa: E402
from rlm_env.train.rl.engines import check_fixed_models  # noqa: E402

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa1111-0000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb2222-0000)
  MIG 1g.10gb     Device  0: (UUID: MIG-cccc3333-0000)
"""


@pytest.fixture(autouse=True)
def ask_again():
    """The driver is asked once in a process: here once in each test."""
    gpus_here.cache_clear()
    yield
    gpus_here.cache_clear()


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine whose driver lists two GPUs, whatever torch sees."""
    command = tmp_path / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho asked >> '{tmp_path}/asked'\ncat <<'END'\n{LISTED}END\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")


@pytest.fixture
def no_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def config(**values):
    return TrainConfig.model_validate({"model": "tiny-rlm", "out": "o", "environments": [{"name": "n"}], **values})


def test_gpus_are_those_of_the_machine_and_not_those_that_are_visible(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus_here() == {"0", "1", "GPU-aaaa1111-0000", "GPU-bbbb2222-0000", "MIG-cccc3333-0000"}
    check_gpus("engine", EngineOptions(devices=(0, 1), extra_args=("-tp", "2")))
    for devices in (("GPU-bbbb",), ("MIG-cccc3333-0000",)):
        check_gpus("engine", EngineOptions(devices=devices))


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("devices", [(4, 5), ("GPU-dddd",), (1, 2)])
def test_gpus_that_are_not_there_are_refused(two_gpus, devices, dry):
    with pytest.raises(ConfigError, match=r"engine\.devices: there is no GPU .*; there are: 0, 1"):
        check_gpus("engine", EngineOptions(devices=devices), dry=dry)


def test_the_driver_is_asked_once_for_all_engines(two_gpus, tmp_path):
    names = "abc"
    engines = [{"name": name, "server": {"devices": [0], "extra_args": PART}} for name in names]
    check_servers(config(engines=engines), dry=True)
    for where in names:
        check_gpus(where, EngineOptions(devices=(1,)), dry=True)
    assert (tmp_path / "asked").read_text() == "asked\n"


@pytest.fixture
def card(monkeypatch):
    """A machine with one GPU of so many MiB, and with vLLM for GPUs; no tensor is made on it."""

    def make(mib):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (mib * 2**20, mib * 2**20))
        monkeypatch.setattr(engine_fit, "is_cpu_build", lambda: False)

    return make


@pytest.mark.parametrize(
    ("engine", "where"),
    [
        ({"engine": {}}, "engine"),
        ({"engine": {"devices": [0]}}, "engine"),
        ({"engines": [{"name": "a", "server": {"devices": [1]}}, {"name": "b"}]}, "engines.b.server"),
        ({"engine": {"devices": [1]}, "teacher": {"model": "tiny-rlm", "server": {"devices": [0]}}}, "teacher.server"),
    ],
    ids=["unsaid", "named", "one of two", "a teacher"],
)
def test_a_vllm_beside_the_trainer_says_how_much_it_takes(two_gpus, card, engine, where):
    card(1024)
    trainer = {"trainer": {"pack_tokens": 8192}}
    with pytest.raises(ConfigError, match=rf"{where}: it is on GPU 0 beside the trainer, which needs about \d"):
        check_servers(config(**engine, **trainer))
    check_servers(config(engine={"extra_args": PART}, **trainer))
    check_servers(config(engine={"devices": [1]}, **trainer))
    check_servers(config(**engine, trainer={"device": "cpu", "pack_tokens": 8192}))
    card(80 * 1024)  # of which it leaves enough
    check_servers(config(**engine, **trainer))


def test_a_machine_without_gpus_may_check_a_run_for_another_but_not_begin_it(no_gpus):
    check_gpus("engine", EngineOptions(devices=(0,)), dry=True)
    with pytest.raises(ConfigError, match="there is no GPU 0 here; there are: none"):
        check_gpus("engine", EngineOptions(devices=(0,)))


@pytest.mark.parametrize(
    ("devices", "words", "fits"),
    [
        ((0, 1), ("-tp", "2"), True),
        ((0, 1), ("--tensor-parallel-size=2", "--pipeline_parallel_size", "2"), False),
        ((0,), ("-pp", "2"), False),
    ],
)
def test_an_engine_gets_as_many_gpus_as_it_asks_for(no_gpus, devices, words, fits):
    options = EngineOptions(devices=devices, extra_args=words)
    if fits:
        check_gpus("engine", options, dry=True)
        return
    with pytest.raises(ConfigError, match=r"asks for \d GPUs .* has \d"):
        check_gpus("engine", options, dry=True)


def test_a_window_beyond_the_models_own_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"engine\.max_model_len is 5,000, but the window of tiny-rlm is 2,048"):
        check_servers(config(engine={"max_model_len": 5000}))
    teacher = {"model": "tiny-rlm", "server": {"max_model_len": 5000}}
    with pytest.raises(ConfigError, match=r"teacher\.server\.max_model_len is 5,000"):
        check_servers(config(teacher=teacher))
    fixed = [{"name": "a", "roles": ["root"]}, {"name": "b", "roles": ["sub"], "weights": "fixed", "model": "tiny-rlm"}]
    fixed[1]["server"] = {"max_model_len": 5000}
    with pytest.raises(ConfigError, match=r"engines\.b\.server\.max_model_len is 5,000"):
        check_servers(config(engines=fixed, samples={"train_sub_calls": False}))
    check_servers(config(engine={"max_model_len": 1024}))
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    check_servers(config(engine={"max_model_len": 5000}))


@pytest.mark.parametrize(
    ("rope", "window"),
    [
        (None, 1000),
        ({"rope_type": "default", "rope_theta": 1e4}, 1000),
        ({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, 4000),
    ],
)
def test_a_window_that_rotation_stretches_counts_in_full(rope, window):
    given = {} if rope is None else {"rope_parameters": rope}
    assert own_window(transformers.Qwen3Config(max_position_embeddings=1000, **given)) == window


def test_the_parser_is_asked_only_about_engines_that_are_not_trained(monkeypatch):
    asked = []
    monkeypatch.setattr(engine_fit, "parser_complaint", lambda words: asked.append(words) or "unrecognized")
    monkeypatch.setattr(engine_fit, "vllm_version", lambda: "0.30.0")
    check_parser(config(engine={"extra_args": ["--block-size", "8"]}))
    assert asked == []
    teacher = {"model": "tiny-rlm", "server": {"extra_args": ["--blok-size", "8"]}}
    with pytest.raises(ConfigError, match=r"teacher\.server\.extra_args: vLLM 0\.30\.0 does not .*: unrecognized"):
        check_parser(config(teacher=teacher))
    assert asked == [("--blok-size", "8")]


def test_gpus_that_would_be_idle_are_named(no_gpus):
    with pytest.raises(ConfigError, match=r'has 4 GPUs, and vLLM would use 1: .*"--tensor-parallel-size", "4"'):
        check_gpus("engine", EngineOptions(devices=(4, 5, 6, 7)), dry=True)
    check_gpus("engine", EngineOptions(devices=(4, 5), extra_args=("--data-parallel-size", "2")), dry=True)


PART = ("--gpu-memory-utilization", "0.4")
JUDGE = {"name": "j", "roles": ["judge"], "weights": "fixed"}


@pytest.mark.parametrize(
    ("engines", "teacher"),
    [
        ([{"server": {"devices": [0]}}, {**JUDGE, "server": {"devices": [0]}}], None),
        ([{"server": {"devices": [0], "extra_args": PART}}, {**JUDGE, "server": {"devices": [0]}}], None),
        ([{"server": {"devices": [0]}}], {"model": "tiny-rlm", "server": {"devices": [0], "extra_args": PART}}),
    ],
    ids=["none says how much", "one says how much", "the teacher's neighbor does not say"],
)
def test_two_engines_on_one_gpu_say_how_much_each_may_have(no_gpus, engines, teacher):
    values = {"engines": engines} | ({} if teacher is None else {"teacher": teacher})
    with pytest.raises(ConfigError, match=r"are both on GPU 0, and each would take nine tenths of its memory"):
        check_servers(config(**values), dry=True)
    parts = {"devices": [0], "extra_args": PART}
    both = [{"server": parts}, {**JUDGE, "server": parts}]
    check_servers(config(engines=both), dry=True)
    check_servers(config(engines=[{"server": {"devices": [0]}}, {**JUDGE, "server": {"devices": [1]}}]), dry=True)


def test_a_local_teacher_sees_all_that_the_policy_writes():
    teacher = {"model": "tiny-rlm", "server": {"max_model_len": 512}}
    with pytest.raises(
        ConfigError, match=r"teacher\.server\.max_model_len: the teacher's window of 512 tokens is below"
    ):
        check_servers(config(teacher=teacher))
    check_servers(config(teacher=teacher, engine={"max_model_len": 512}))


def test_a_key_that_is_not_set_is_missed_before_anything_is_started(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    judge = {**JUDGE, "model": "m", "base_url": "http://10.0.0.2/v1", "key_env": "SOME_KEY"}
    with pytest.raises(ConfigError, match=r"engines\.j\.key_env: the environment variable SOME_KEY is not set"):
        check_fixed_models(config(engines=[{}, judge]))
    monkeypatch.setenv("SOME_KEY", "k")
    check_fixed_models(config(engines=[{}, judge]))
