"""Which rollouts supervised training keeps, and the token ids of those that have none of the student's."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.protocol import TOOL_NAME
from rlm_env.rollout import Rollout, Score, StopReason, SubCall, SubTurn, Turn, write_rollouts
from rlm_env.runs.errors import ConfigError
from rlm_env.train.learner.samples import SampleKind, rollout_samples
from rlm_env.train.sft.chosen import choose
from rlm_env.train.sft.config import SFTConfig, load_sft_config
from rlm_env.train.sft.text_turns import CannotEncode, in_students_tokens
from tests.tiny_model import CHATML_TEMPLATE, make_tokenizer

PROMPT = [{"role": "system", "content": "Write code."}, {"role": "user", "content": "How many lines?"}]
FIRST = "I look.\n```repl\nprint(len(context))\n```"
LAST = 'Done: naïve 🙂\n```repl\nanswer["ready"] = True\n```'


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return make_tokens(tmp_path_factory.mktemp("student"))


def make_tokens(folder, renderer="default", **options):
    make_tokenizer(**options).save_pretrained(folder)
    return ChatTokens(folder, renderer)


def text_rollout(name="a", task="t", score=1.0, last=LAST, **fields):
    """As a text-only endpoint leaves it: two turns and two sub-calls, one of them failed."""
    messages = [
        *PROMPT,
        {"role": "assistant", "content": FIRST},
        {"role": "user", "content": "Output:\n12"},
        {"role": "assistant", "content": last},
    ]
    turns = [Turn(text=FIRST, finish_reason="stop"), Turn(text=last, finish_reason="stop")]
    calls = [
        SubCall(0, 0, 0, [{"role": "user", "content": "Label: fox"}], text="animal", finish_reason="stop"),
        SubCall(1, 0, 0, [{"role": "user", "content": "Label: dog"}], error="timed out"),
    ]
    defaults = {"environment": "e", "messages": messages, "turns": turns, "sub_calls": calls, "score": Score(score)}
    return Rollout(id=name, task_id=task, **{**defaults, **fields})


def template_text(messages):
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def test_a_teachers_text_gets_the_ids_that_the_students_template_gives_it(tokens):
    rollout, encoded = in_students_tokens(text_rollout(), tokens)
    root, sub = rollout_samples(rollout)
    assert encoded
    assert tokens.tokenizer.decode(root.token_ids) == template_text(rollout.messages).removesuffix("\n")
    trained = [token for token, own in zip(root.token_ids, root.mask, strict=True) if own]
    assert tokens.tokenizer.decode(trained) == f"{FIRST}<|im_end|>{LAST}<|im_end|>"
    assert root.token_ids == tokens.tokenizer.encode(template_text(rollout.messages), add_special_tokens=False)[:-1]
    assert sub.kind is SampleKind.SUB
    assert tokens.tokenizer.decode([t for t, own in zip(sub.token_ids, sub.mask, strict=True) if own]) == (
        "animal<|im_end|>"
    )


def test_recorded_ids_of_the_student_are_left_alone(tokens):
    rollout, _ = in_students_tokens(text_rollout(), tokens)
    # Ids that encoding would never give: letter by letter.
    spelled = [i for letter in "animal" for i in tokens.tokenizer.encode(letter)] + tokens.stop_token_ids[:1]
    rollout.sub_calls[0] = replace(rollout.sub_calls[0], completion_ids=spelled, logprobs=None)
    again, encoded = in_students_tokens(rollout, tokens)
    assert not encoded
    assert again.turns == rollout.turns
    assert again.sub_calls[0].completion_ids == spelled
    assert again.sub_calls[0].logprobs == [0.0] * len(spelled)


def test_ids_of_another_tokenizer_are_not_believed(tokens):
    rollout, _ = in_students_tokens(text_rollout(), tokens)
    shifted = [replace(turn, completion_ids=[i + 1 for i in turn.completion_ids]) for turn in rollout.turns]
    outside = [replace(turn, prompt_ids=[9_999_999]) for turn in rollout.turns]
    for turns in (shifted, outside):
        again, encoded = in_students_tokens(replace(rollout, turns=turns), tokens)
        assert encoded
        assert again.turns == rollout.turns


def test_a_reply_that_was_cut_off_has_no_end(tokens):
    plain = text_rollout()
    cut = replace(plain, turns=[plain.turns[0], replace(plain.turns[1], finish_reason="length")])
    (whole, _), (found, _) = in_students_tokens(plain, tokens), in_students_tokens(cut, tokens)
    assert whole.turns[1].completion_ids == found.turns[1].completion_ids + tokens.stop_token_ids[:1]


def test_tool_calls_and_reasoning_are_encoded_where_the_template_knows_them(tmp_path):
    tokens = make_tokens(tmp_path, {"name": "qwen3", "thinking_retention": "all"})
    call = {"id": "c", "type": "function", "function": {"name": TOOL_NAME, "arguments": '{"code": "print(1)"}'}}
    messages = [
        *PROMPT,
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "First look."},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "assistant", "content": "Done."},
    ]
    turns = [Turn(text="", tool_calls=[call], reasoning="First look."), Turn(text="Done.")]
    rollout, _ = in_students_tokens(text_rollout(messages=messages, turns=turns, sub_calls=[]), tokens)
    (sample,) = rollout_samples(rollout)
    trained = tokens.tokenizer.decode([t for t, own in zip(sample.token_ids, sample.mask, strict=True) if own])
    assert "First look." in trained
    assert '"code": "print(1)"' in trained
    assert trained.endswith("Done.<|im_end|>")
    assert TOOL_NAME in tokens.tokenizer.decode(rollout.turns[0].prompt_ids)  # its schema


def test_what_cannot_be_encoded_is_refused(tokens, tmp_path):
    with pytest.raises(CannotEncode, match="no recorded prompt"):
        in_students_tokens(text_rollout(messages=text_rollout().messages[2:3], turns=[Turn(text=FIRST)]), tokens)
    with pytest.raises(CannotEncode, match="do not match its turns"):
        in_students_tokens(text_rollout(turns=[Turn(text=FIRST)]), tokens)
    with pytest.raises(CannotEncode, match="does not survive"):  # the marker would end the reply early
        in_students_tokens(text_rollout(turns=[Turn(text="a<|im_end|>b"), Turn(text=LAST)]), tokens)
    # A template whose generation prompt opens a thought that the reply does not have.
    thinking = CHATML_TEMPLATE.replace("'<|im_start|>assistant\\n' -", "'<|im_start|>assistant\\n<think>\\n' -")
    other = make_tokens(tmp_path, chat_template=thinking)
    with pytest.raises(CannotEncode, match="does not put right after its prompt"):
        in_students_tokens(text_rollout(), other)


def test_a_sub_call_with_tools_is_left_out_where_it_has_no_ids(tokens):
    calls = [*text_rollout().sub_calls, SubCall(2, 0, 0, [], text="x", tool_turns=[SubTurn(text="y")])]
    rollout, _ = in_students_tokens(text_rollout(sub_calls=calls), tokens)
    assert [call.id for call in rollout.sub_calls] == [0]


def chosen_of(tokens, folder, rollouts, trainer=None, **settings):
    write_rollouts(folder / "rollouts.jsonl", rollouts)
    values = {"model": "m", "out": folder, "rollouts": [str(folder)], "held_out": 0, "trainer": trainer or {}}
    return choose(SFTConfig.model_validate({**values, **settings}), tokens)


@pytest.mark.parametrize(
    ("fields", "keep", "reason"),
    [
        ({"score": 0.5}, {}, "score below 1"),
        ({"score": 0.5}, {"min_score": 0.6}, "score below 0.6"),
        ({"stop_reason": StopReason.MAX_TURNS}, {}, "stop reason max_turns"),
        ({"scaffold": "standard"}, {"scaffolds": ["rlm"]}, "scaffold standard"),
        ({}, {"environments": ["other"]}, "environment e"),
        ({}, {"min_turns": 3}, "fewer than 3 turns"),
        ({}, {"max_turns": 1}, "more than 1 turns"),
        ({}, {"max_tokens": 20}, "a sample of more than 20 tokens"),
        ({"messages": []}, {}, "no recorded prompt as text"),
    ],
)
def test_a_filter_leaves_out_and_says_why(tokens, tmp_path, fields, keep, reason):
    good = text_rollout("good", environment="other") if "environments" in keep else None
    found = chosen_of(tokens, tmp_path, [text_rollout("bad", **fields), *([good] if good else [])], keep=keep)
    assert found.dropped == {reason: 1}
    assert {sample.rollout_id for sample in found.samples} == ({"good"} if good else set())
    assert found.read == found.kept + 1


def test_a_rollout_without_a_score_is_left_out(tokens, tmp_path):
    unscored = replace(text_rollout(), score=None)
    assert chosen_of(tokens, tmp_path, [unscored], keep={"min_score": 0}).dropped == {"no score": 1}


def test_samples_never_exceed_a_pack(tokens, tmp_path):
    found = chosen_of(tokens, tmp_path, [text_rollout()], trainer={"pack_tokens": 16}, keep={"max_tokens": 500})
    assert found.dropped == {"a sample of more than 16 tokens": 1}


def test_the_best_of_a_task_are_kept_and_the_cheaper_of_equals(tokens, tmp_path):
    rollouts = [text_rollout(f"{i}", score=score, last=f"{LAST} {i}") for i, score in enumerate((0.5, 1.0, 1.0, 0.9))]
    for rollout, sampled in zip(rollouts, (1, 90, 40, 1), strict=True):
        rollout.root_usage.completion_tokens = sampled
    keep = {"min_score": 0, "best_of": 2}
    found = chosen_of(tokens, tmp_path, [*rollouts, text_rollout("other", task="u", score=0.1)], keep=keep)
    assert {sample.rollout_id for sample in found.samples} == {"1", "2", "other"}
    found = chosen_of(tokens, tmp_path, rollouts, keep=keep | {"best_of": 1})
    assert {sample.rollout_id for sample in found.samples} == {"2"}
    assert found.dropped == {"not among the best 1 of its task": 3}


def test_the_same_said_again_is_trained_once(tokens, tmp_path):
    rollouts = [text_rollout("a"), text_rollout("b"), text_rollout("c", last="Else."), text_rollout("d", task="u")]
    found = chosen_of(tokens, tmp_path, rollouts)
    assert {sample.rollout_id for sample in found.samples} == {"a", "c", "d"}
    assert found.dropped == {"the same root replies as in another one": 1}
    assert chosen_of(tokens, tmp_path, rollouts, keep={"dedupe": False}).kept == 4


def test_what_was_sampled_greedily_is_trained_too(tokens, tmp_path):
    """Cross-entropy asks for no distribution that tokens were sampled from."""
    greedy = {"sampling": {"root": {"temperature": 0.0}, "sub": {"temperature": 0.0}}}
    found = chosen_of(tokens, tmp_path, [text_rollout(info=greedy)])
    assert [sample.temperature for sample in found.samples] == [1.0, 1.0]


def test_of_a_rollout_that_was_repeated_the_later_counts(tokens, tmp_path):
    failed = replace(text_rollout("a"), score=None, stop_reason=StopReason.ERROR)
    found = chosen_of(tokens, tmp_path, [failed, text_rollout("a")])
    assert (found.read, found.kept) == (1, 1)


def test_root_and_sub_samples_are_a_choice(tokens, tmp_path):
    both = chosen_of(tokens, tmp_path, [text_rollout()], samples={"sub_weight": 0.5})
    assert [(sample.kind, sample.weight) for sample in both.samples] == [(SampleKind.ROOT, 1.0), (SampleKind.SUB, 0.5)]
    assert all((sample.temperature, sample.advantage) == (1.0, 1.0) for sample in both.samples)
    root = chosen_of(tokens, tmp_path, [text_rollout()], samples={"train_sub_calls": False})
    assert [sample.kind for sample in root.samples] == [SampleKind.ROOT]
    sub = chosen_of(tokens, tmp_path, [text_rollout()], samples={"train_root": False})
    assert [sample.kind for sample in sub.samples] == [SampleKind.SUB]
    with pytest.raises(ValueError, match="nothing would be trained"):
        chosen_of(tokens, tmp_path, [text_rollout()], samples={"train_root": False, "train_sub_calls": False})


def test_samples_are_held_out_by_task(tokens, tmp_path):
    rollouts = [text_rollout(f"{t}{i}", task=f"{t}", last=f"{i}") for t in range(10) for i in range(3)]
    found = chosen_of(tokens, tmp_path, rollouts, held_out=0.2)
    trained, held_out = ({sample.rollout_id[0] for sample in samples} for samples in (found.samples, found.held_out))
    assert (len(trained), len(held_out), found.tasks, found.held_out_tasks) == (8, 2, 10, 2)
    assert not trained & held_out
    other = chosen_of(tokens, tmp_path, rollouts, held_out=0.2, seed=1)
    assert {sample.rollout_id[0] for sample in other.held_out} != held_out
    few = chosen_of(tokens, tmp_path, rollouts[:6], held_out=0.01)
    assert (few.tasks, few.held_out_tasks) == (2, 1)


def test_files_that_are_no_rollouts_are_named(tokens, tmp_path):
    config = {"model": "m", "out": tmp_path}
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl cannot be read"):
        choose(SFTConfig(**config, rollouts=[str(tmp_path / "nowhere.jsonl")]), tokens)
    (tmp_path / "bad.jsonl").write_text('{"schema": 2, "id": "a", "what": 1}\n')
    with pytest.raises(ConfigError, match=r"bad\.jsonl, line 1: .*what"):
        choose(SFTConfig(**config, rollouts=[str(tmp_path / "bad.jsonl")]), tokens)


def test_the_config_from_a_file_and_the_command_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('model = "tiny-rlm"\nrollouts = ["a"]\n[optimizer]\nlr = 1e-4\n[keep]\nbest_of = 2\n')
    config = load_sft_config(path, {"keep": {"min_score": 0.5}})
    assert (config.keep.best_of, config.keep.min_score, str(config.out)) == (2, 0.5, "outputs/mine")
    assert (config.optimizer.lr, config.optimizer.schedule) == (1e-4, "cosine")  # what is left out is SFT's default
    assert SFTConfig.model_validate(config.as_toml()) == config
    with pytest.raises(ConfigError, match=r"unknown key 'keep\.min_scor'; did you mean 'min_score'"):
        load_sft_config(path, {"keep": {"min_scor": 0.5}})


def test_arguments_that_an_endpoint_sent_as_an_object_are_encoded_like_their_text(tmp_path):
    tokens = make_tokens(tmp_path, "qwen3")

    def taught(arguments):
        calls = [{"id": "a", "type": "function", "function": {"name": "python_repl", "arguments": arguments}}]
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        turn = Turn(text="", tool_calls=calls, finish_reason="stop")
        return Rollout(id="r", turns=[turn], score=Score(1.0), messages=messages)

    as_text, _ = in_students_tokens(taught('{"code": "print(1)"}'), tokens)
    as_object, _ = in_students_tokens(taught({"code": "print(1)"}), tokens)
    assert as_object.turns[0].completion_ids == as_text.turns[0].completion_ids
