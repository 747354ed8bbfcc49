"""Two processes (gloo, FSDP2) do what one does: losses, gradients, weights, scores, exports, checkpoints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlm_env.train.learner import distributed  # noqa: E402
from tests.packages import needs  # noqa: E402
from tests.train.two_processes import CASES, TOLERANCE, model_of, work  # noqa: E402

needs("peft")

two_processes = pytest.mark.slow  # torchrun


@pytest.fixture(scope="module")
def results(make_qwen3, tmp_path_factory):
    """By number of processes: what `work` returned, and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp("distributed")
    make_qwen3(tie_word_embeddings=True).save_pretrained(folder / "models" / "dense")
    make_qwen3(num_experts=4, moe_intermediate_size=32, num_experts_per_tok=2).save_pretrained(
        folder / "models" / "experts"
    )
    found = {}
    for processes in (1, 2):
        out = folder / str(processes)
        out.mkdir()
        if processes == 1:
            work(folder / "models", out)
        else:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            program = ["-m", "tests.train.two_processes", str(folder / "models"), str(out)]
            done = subprocess.run(
                torchrun + program, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=240
            )
            assert done.returncode == 0, done.stderr[-4000:]
        found[processes] = json.loads((out / "results.json").read_text()), out
    return found


@two_processes
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_same_metrics_and_scores(results, case):
    one, two = (results[processes][0][case] for processes in (1, 2))
    tolerance = TOLERANCE[CASES[case].dtype]
    for ours, theirs in zip(two["metrics"], one["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    # Shared out evenly; of three samples that share no pack, one of two processes gets a filler.
    assert (one["packs"], two["packs"]) == (([2] * 4, [2] * 4) if case == "tree" else ([3] * 4, [4, 4, 4, 3]))
    for ours, theirs in zip(two["scores"], one["scores"], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)


@two_processes
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_same_gradients_and_weights(results, case):
    one, two = (torch.load(results[processes][1] / f"{case}.pt") for processes in (1, 2))
    tolerance = TOLERANCE[CASES[case].dtype]
    for part in ("gradients", "weights"):
        assert two[part].keys() == one[part].keys()
        for name, value in one[part].items():
            assert (two[part][name] - value).norm() <= tolerance * max(value.norm(), 1e-6), name


@two_processes
@pytest.mark.parametrize("case", CASES)
def test_each_process_reads_its_share_alone(results, case):
    """The first one reads one layer of two and the embeddings besides, to check packing."""
    from safetensors.torch import load_file

    found, out = results[2]
    stored = load_file(model_of(out.parent / "models", case) / "model.safetensors")
    sizes = {name: tensor.numel() for name, tensor in stored.items()}
    first, second = found[case]["read"]
    times = 2 if case == "reference" else 1
    assert first["rows"] + second["rows"] == times * sum(sizes.values())
    assert second["rows"] <= times * 0.51 * sum(sizes.values())
    assert second["whole"] == 0
    assert first["whole"] == sum(size for name, size in sizes.items() if ".layers.1." not in name)
    assert results[1][0][case]["read"] == [{"whole": 0, "rows": 0}]  # one process loads as transformers does


@two_processes
@pytest.mark.parametrize("case", CASES)
def test_two_processes_export_the_same_model(results, case):
    from safetensors.torch import load_file

    one, two = (load_file(results[processes][1] / f"{case}-out" / "model.safetensors") for processes in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.dtype == two[name].dtype == getattr(torch, CASES[case].dtype)
        difference = (two[name].float() - value.float()).norm()
        assert difference <= max(TOLERANCE[CASES[case].dtype], 1e-4) * value.float().norm(), name


@two_processes
@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_of_two_goes_on_to_the_bit_and_is_read_by_one(results, case):
    """`again`: the step after the checkpoint, taken once more after loading it."""
    for processes in (1, 2):
        found = results[processes][0][case]
        assert found["again"] == found["last"]
    found, out = results[2]
    from tests.train.two_processes import make_learner, make_samples, summary

    learner = make_learner(out.parent / "models", case)
    learner.load(out / f"{case}-saved")
    tolerance = TOLERANCE[CASES[case].dtype]
    last = pytest.approx(found[case]["last"], rel=tolerance, abs=tolerance)
    assert summary(learner.step(make_samples(case))) == last


def test_one_process_leads_nobody():
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    learner = object()
    with distributed.process_group(torch.device("cpu")), distributed.leading(learner) as led:
        assert led is learner
    assert distributed.gather("x") == ["x"]
    assert distributed.sum_over_processes({"a": 1.0}) == {"a": 1.0}


def test_packs_are_shared_out_evenly_with_fillers(monkeypatch):
    from rlm_env.train.learner.samples import Sample

    samples = [
        Sample([1] * size, [False] + [True] * (size - 1), [0.0] * size, str(size)) for size in (9, 9, 8, 7, 6, 3, 2)
    ]
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    shares = []
    for rank in range(4):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.share(samples, 10))
    assert [len(share) for share in shares] == [2, 2, 2, 2]
    real = [pack for share in shares for pack in share if not distributed.is_filler(pack)]
    assert len(real) == 7
    assert sorted(sample.rollout_id for pack in real for sample in pack) == sorted(
        sample.rollout_id for sample in samples
    )
