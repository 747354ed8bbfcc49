"""Rollouts to samples: every sampled token is trained exactly once, after exactly what the engine saw before it."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.rollout import GroupMember, Rollout, SubCall, SubTurn, Turn
from rlm_env.train.learner import samples as module
from rlm_env.train.learner.config import LossConfig, SamplesConfig
from rlm_env.train.learner.samples import SampleKind, recorded_samples, rollout_samples

ids = st.lists(st.integers(0, 4), min_size=1, max_size=5)


def turn(prompt, sampled, logprobs=None):
    return Turn(prompt_ids=prompt, completion_ids=sampled, logprobs=logprobs or [-0.5] * len(sampled))


def call(index, prompt, sampled):
    logprobs = [-0.25] * len(sampled)
    return SubCall(index, 0, 0, [], prompt_ids=prompt, completion_ids=sampled, logprobs=logprobs)


def trained(samples):
    """Every trained token with all that stands before it, and its logprob."""
    return [
        (tuple(sample.token_ids[: index + 1]), sample.behavior_logprobs[index])
        for sample in samples
        for index, mask in enumerate(sample.mask)
        if mask
    ]


def sampled(sources):
    """The same, read off the record."""
    return [
        (tuple(source.prompt_ids + source.completion_ids[: index + 1]), logprob)
        for source in sources
        for index, logprob in enumerate(source.logprobs)
    ]


def test_a_conversation_that_stays_a_prefix_is_one_sample():
    rollout = Rollout(
        id="r",
        turns=[turn([1, 2], [3, 4], [-1.0, -2.0]), turn([1, 2, 3, 4, 5], [6], [-3.0])],
        group=GroupMember("a", policy_version=7),
    )
    (sample,) = rollout_samples(rollout)
    assert sample.token_ids == [1, 2, 3, 4, 5, 6]
    assert sample.mask == [False, False, True, True, False, True]
    assert sample.behavior_logprobs == [0.0, 0.0, -1.0, -2.0, 0.0, -3.0]
    assert (sample.rollout_id, sample.policy_version, sample.kind, sample.weight) == ("r", 7, SampleKind.ROOT, 1.0)
    assert (len(sample), sample.trained_tokens) == (6, 3)


def test_a_rewritten_history_forks_and_shared_tokens_are_trained_once():
    first, second = turn([1, 2], [3, 4]), turn([1, 2, 4, 5], [6])  # a template that drops the reasoning, 3
    sample, fork = rollout_samples(Rollout(turns=[first, second]))
    assert sample.token_ids == [1, 2, 3, 4]
    assert fork.token_ids == [1, 2, 4, 5, 6]
    assert fork.mask == [False, False, False, False, True]


def test_retokenised_text_forks_rather_than_mend():
    """The same text in other ids: the engine saw the second turn after these ids and no others."""
    first, second = turn([1], [2, 3]), turn([1, 23, 5], [6])
    assert [sample.token_ids for sample in rollout_samples(Rollout(turns=[first, second]))] == [
        [1, 2, 3],
        [1, 23, 5, 6],
    ]


def test_a_conversation_may_come_back_to_an_earlier_sample():
    """A compaction in between does not keep the original from being continued."""
    turns = [turn([1], [2]), turn([9], [8]), turn([1, 2, 3], [4]), turn([9, 8, 7], [6])]
    samples = rollout_samples(Rollout(turns=turns))
    assert [sample.token_ids for sample in samples] == [[1, 2, 3, 4], [9, 8, 7, 6]]


def test_sub_calls_are_samples_of_their_own():
    rollout = Rollout(id="r", turns=[turn([1], [2])], sub_calls=[call(0, [5, 6], [7]), call(1, [5, 6], [7])])
    root, *subs = rollout_samples(rollout, SamplesConfig(sub_weight=0.5))
    assert (root.kind, root.weight) == (SampleKind.ROOT, 1.0)
    assert [(sample.token_ids, sample.mask, sample.kind, sample.weight) for sample in subs] == [
        ([5, 6, 7], [False, False, True], SampleKind.SUB, 0.5)
    ] * 2
    assert all(sample.rollout_id == "r" for sample in subs)
    assert rollout_samples(rollout, SamplesConfig(train_sub_calls=False)) == [root]
    assert rollout_samples(rollout, SamplesConfig(train_root=False, sub_weight=0.5)) == subs


def test_failed_sub_calls_and_empty_replies_have_no_sample():
    failed = SubCall(0, 0, 0, [], error="the budget of sub-LLM calls is used up")
    assert rollout_samples(Rollout(turns=[turn([1], [])], sub_calls=[failed])) == []


def test_an_empty_reply_in_between_does_not_end_the_sample():
    (sample,) = rollout_samples(Rollout(turns=[turn([1, 2], []), turn([1, 2, 3], [4])]))
    assert (sample.token_ids, sample.mask) == ([1, 2, 3, 4], [False, False, False, True])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            Turn(text="hi"),
            r"rollout 'r', turn 1 has no prompt_ids and no completion_ids and no logprobs: .*TokenPolicy",
        ),
        (Turn(prompt_ids=[1], completion_ids=[2]), "turn 1 has no logprobs"),
        (Turn(prompt_ids=[], completion_ids=[2], logprobs=[-1.0]), "empty prompt_ids"),
        (Turn(prompt_ids=[1], completion_ids=[2, 3], logprobs=[-1.0]), "2 completion_ids but 1 logprobs"),
        (Turn(prompt_ids=[1], completion_ids=[2], logprobs=[float("-inf")]), "not finite"),
        (Turn(prompt_ids=[1], completion_ids=[2], logprobs=[float("nan")]), "not finite"),
    ],
)
def test_incomplete_turns_are_a_clear_error(broken, message):
    with pytest.raises(ValueError, match=message):
        rollout_samples(Rollout(id="r", turns=[turn([1], [2]), broken]))


def test_a_sub_call_without_ids_is_named():
    with pytest.raises(ValueError, match="rollout 'r', sub-call 3, turn 0 has no prompt_ids"):
        rollout_samples(Rollout(id="r", sub_calls=[SubCall(3, 0, 0, [], text="yes")]))


def with_turns(call, *turns):
    call.tool_turns = [
        SubTurn(prompt_ids=t.prompt_ids, completion_ids=t.completion_ids, logprobs=t.logprobs) for t in turns
    ]
    return call


def test_the_turns_of_a_sub_call_with_tools_are_one_sample_as_long_as_they_stay_a_prefix():
    whole = with_turns(call(0, [1, 2, 3, 4, 5], [6]), turn([1, 2], [3]), turn([1, 2, 3, 4], []))
    forked = with_turns(call(1, [9, 3, 5], [6]), turn([1, 2], [3], [-4.0]))  # the last turn has no tools in its prompt
    samples = rollout_samples(Rollout(sub_calls=[whole, forked]), SamplesConfig(sub_weight=0.5))
    assert [(sample.token_ids, sample.mask) for sample in samples] == [
        ([1, 2, 3, 4, 5, 6], [False, False, True, False, False, True]),
        ([1, 2, 3], [False, False, True]),
        ([9, 3, 5, 6], [False, False, False, True]),
    ]
    assert samples[1].behavior_logprobs == [0.0, 0.0, -4.0]
    assert {(sample.kind, sample.weight) for sample in samples} == {(SampleKind.SUB, 0.5)}


def test_sub_calls_never_continue_each_other():
    samples = rollout_samples(Rollout(sub_calls=[call(0, [1], [2]), call(1, [1, 2, 3], [4])]))
    assert [sample.token_ids for sample in samples] == [[1, 2], [1, 2, 3, 4]]


def test_the_replies_before_a_failure_are_trained():
    failed = with_turns(SubCall(0, 0, 0, [], error="the budget of sub-LLM calls is used up"), turn([1], [2]))
    silent = call(1, [3], [4])
    silent.error = "it called tools in its last turn"
    assert [sample.token_ids for sample in rollout_samples(Rollout(sub_calls=[failed, silent]))] == [[1, 2], [3, 4]]


@st.composite
def conversations(draw):
    """Turns that continue the one before, continue an older one, or begin with something else altogether."""
    turns = []
    for _ in range(draw(st.integers(0, 5))):
        past = draw(st.sampled_from([[]] + [t.prompt_ids + t.completion_ids for t in turns]))
        keep = draw(st.integers(0, len(past)) | st.just(len(past)))
        reply = draw(st.lists(st.integers(0, 4), max_size=4))
        logprobs = draw(st.lists(st.floats(-9, 0), min_size=len(reply), max_size=len(reply)))
        turns.append(Turn(prompt_ids=past[:keep] + draw(ids), completion_ids=reply, logprobs=logprobs))
    return turns


@given(conversations(), st.lists(st.tuples(ids, ids), max_size=3))
def test_every_sampled_token_is_trained_once_after_what_the_engine_saw(turns, subs):
    calls = [call(index, prompt, reply) for index, (prompt, reply) in enumerate(subs)]
    before = [(t.prompt_ids.copy(), t.completion_ids.copy()) for t in turns]
    samples = rollout_samples(Rollout(turns=turns, sub_calls=calls))
    assert sorted(trained(samples)) == sorted(sampled(turns) + sampled(calls))
    for sample in samples:
        assert len(sample.token_ids) == len(sample.mask) == len(sample.behavior_logprobs)
        assert any(sample.mask)
        assert not sample.mask[0]
        assert all(
            logprob == 0 for logprob, mask in zip(sample.behavior_logprobs, sample.mask, strict=True) if not mask
        )
    assert [(t.prompt_ids, t.completion_ids) for t in turns] == before  # the record is not changed
    assert len([sample for sample in samples if sample.kind == SampleKind.ROOT]) <= len(turns)


@given(conversations(), st.lists(conversations(), max_size=2))
def test_turns_of_sub_calls_are_trained_once_too(turns, calls):
    subs = [with_turns(SubCall(index, 0, 0, [], error="no answer"), *replies) for index, replies in enumerate(calls)]
    samples = rollout_samples(Rollout(turns=turns, sub_calls=subs))
    assert sorted(trained(samples)) == sorted(sampled([*turns, *(reply for replies in calls for reply in replies)]))


@given(conversations(), conversations(), ids)
def test_samples_survive_the_record_on_disk(turns, replies, prompt):
    calls = [with_turns(call(0, prompt, [1]), *replies)]
    if replies:
        last = replies[-1]
        calls.append(with_turns(call(1, last.prompt_ids + last.completion_ids + prompt, [1]), *replies))
    rollout = Rollout(id="r", turns=turns, sub_calls=calls)
    assert rollout_samples(Rollout.from_json(rollout.to_json())) == rollout_samples(rollout)


def test_samples_carry_the_temperature_that_each_role_was_sampled_with():
    sampling = {"root": {"temperature": 0.7, "max_tokens": 8}, "sub": {"temperature": 1.2}}
    rollout = Rollout(turns=[turn([1], [2])], sub_calls=[call(0, [3], [4])], info={"sampling": sampling})
    assert [sample.temperature for sample in rollout_samples(rollout)] == [0.7, 1.2]
    assert rollout_samples(Rollout(turns=[turn([1], [2])]))[0].temperature == 1.0


def test_greedy_samples_can_be_looked_at_and_trained_at_another_temperature_only():
    sampling = {"root": {"temperature": 1.0}, "sub": {"temperature": 0.0}}
    rollout = Rollout(id="r", turns=[turn([1], [2])], sub_calls=[call(0, [3], [4])], info={"sampling": sampling})
    assert [sample.temperature for sample in recorded_samples(rollout)] == [1.0, 0.0]
    with pytest.raises(ValueError, match="rollout 'r': temperature must be a number above 0"):
        rollout_samples(rollout)
    assert [sample.temperature for sample in rollout_samples(rollout, temperature=1.0)] == [1.0, 1.0]


def environment_tokens_trained(patch):
    original = module.rollout_samples

    def everything_after_the_prompt(rollout):
        found = original(rollout)
        for sample in found:
            first = sample.mask.index(True)
            sample.mask[first:] = [True] * (len(sample) - first)
        return found

    patch.setattr(module, "rollout_samples", everything_after_the_prompt)


def retokenization(patch):
    """Decoded and encoded again, two sampled tokens come back as one."""
    original = module.rollout_samples

    def merged(rollout):
        found = original(rollout)
        for sample in found:
            first = sample.mask.index(True)
            sample.token_ids[first : first + 2] = [(sample.token_ids[first] + sample.token_ids[first + 1]) % 97]
            del sample.mask[first], sample.behavior_logprobs[first]
        return found

    patch.setattr(module, "rollout_samples", merged)


def one_sample_despite_a_rewritten_history(patch):
    patch.setattr(module, "_longest_prefix", lambda found, _: found[-1] if found else None)


def shared_tokens_trained_twice(patch):
    """The fork trains the replies that are in its prompt again."""
    original = module.rollout_samples

    def again(rollout):
        found = original(rollout)
        first, fork = found[0], found[1]
        fork.mask[5:9] = first.mask[7:11]
        fork.behavior_logprobs[5:9] = first.behavior_logprobs[7:11]
        return found

    patch.setattr(module, "rollout_samples", again)


@pytest.mark.parametrize(
    "bug",
    [environment_tokens_trained, retokenization, one_sample_despite_a_rewritten_history, shared_tokens_trained_twice],
    ids=lambda bug: bug.__name__,
)
def test_a_classic_bug_is_seen(bug, plain_step):
    plain_step.assert_seen(bug)


class Chosen:
    """In place of random.Random: a draw that the test decides."""

    def __init__(self, places):
        self.places = places

    def sample(self, population, k):
        assert len(self.places) == k
        assert set(self.places) <= set(population)
        return list(self.places)


@pytest.mark.parametrize("norm", ["token", "sequence", "rollout", "role", "constant"])
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    most=st.integers(1, 4),
    values=st.lists(st.floats(-10, 10), min_size=6, max_size=6),
)
def test_drawn_sub_calls_leave_the_loss_as_it_is_on_average(norm, sizes, most, values):
    """Over all draws there are, the mean of the step's loss is that of training every sub-call, to rounding."""
    loss_module = pytest.importorskip("rlm_env.train.learner.loss")
    calls = [call(i, [1], [2] * size) for i, size in enumerate(sizes)]
    rollout = Rollout(id="r", turns=[turn([1], [2, 3])], sub_calls=calls)
    config = LossConfig(norm=norm, norm_tokens=9 if norm == "constant" else None)
    value_of = dict(zip([2, *(10 + i for i in range(len(sizes)))], values, strict=False))

    def loss(samples):
        weights = loss_module.sample_weights(samples, config)
        found = 0.0
        for weight, sample in zip(weights, samples, strict=True):
            key = 2 if sample.kind is SampleKind.ROOT else 10 + len(sample)
            found += weight * value_of.get(key, float(len(sample))) * sample.trained_tokens
        return found / loss_module.loss_denominator(samples, config)

    expected = loss(rollout_samples(rollout, SamplesConfig(sub_weight=0.5)))
    most = min(most, len(sizes))
    draws = list(combinations(range(len(sizes)), most))
    total = 0.0
    for places in draws:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.random, "Random", lambda _, places=places: Chosen(places))
            total += loss(rollout_samples(rollout, SamplesConfig(sub_weight=0.5, max_sub_calls=most)))
    assert total / len(draws) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_same_sub_calls_are_drawn_each_time_and_every_one_as_often():
    calls = [call(i, [1], [5 + i]) for i in range(6)]
    drawn = Counter()
    for number in range(600):
        rollout = Rollout(id=f"{number:06}/0", sub_calls=calls)
        config = SamplesConfig(max_sub_calls=2)
        found = rollout_samples(rollout, config)
        assert found == rollout_samples(rollout, config)
        assert [sample.stands_for for sample in found] == [3.0, 3.0]
        drawn.update(sample.token_ids[-1] for sample in found)
    assert set(drawn) == set(range(5, 11))
    assert all(abs(count - 200) < 50 for count in drawn.values())  # 4 standard deviations


def test_a_cap_that_is_not_reached_changes_nothing():
    calls = [call(i, [1], [5 + i]) for i in range(3)]
    rollout = Rollout(id="r", sub_calls=calls)
    assert rollout_samples(rollout, SamplesConfig(max_sub_calls=3)) == rollout_samples(rollout)
