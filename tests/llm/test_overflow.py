"""Overflow in the words of providers, and refusals that are none."""

# ruff: noqa: E501  the words of providers stand in one piece

from __future__ import annotations

import pytest

from rlm_env.llm.overflow import overflow_from_message

OVERFLOWS = [
    (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. Please reduce the length of the messages.",
        9000,
        8192,
    ),
    (
        "This model's maximum context length is 1024 tokens. However, you requested 100 output tokens and your prompt contains 2000 input tokens, for a total of 2100 tokens. (parameter=input_tokens, value=2000)",
        2000,
        1024,
    ),
    (
        "This model's maximum context length is 1024 tokens. However, you requested 8 output tokens and your prompt contains 30000 characters (more than 25400 characters, which is the upper bound for 1016 input tokens).",
        None,
        1024,
    ),
    (
        "This model's maximum context length is 1024 tokens. However, you requested 24 output tokens and your prompt contains at least 1001 input tokens",
        None,
        1024,
    ),
    ("prompt is too long: 208310 tokens > 200000 maximum", 208310, 200000),
    ("Your input exceeds the context window of this model. Please adjust your input and try again.", None, None),
    ("the request exceeds the available context size (4096 tokens), try increasing it", None, 4096),
    ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", 5000, 4096),
    ("This model's maximum prompt length is 131072 but the request contains 140000 tokens.", 140000, 131072),
    ("Please reduce the length of the messages or completion.", None, None),
    ("Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192", 9000, 8192),
    ("Input validation error: `inputs` must have less than 4096 tokens. Given: 5000", 5000, 4096),
    (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 500 `max_new_tokens`",
        9000,
        8193,
    ),
    ("Invalid request: Your request exceeded model token limit: 131072 (requested: 140000)", 140000, 131072),
    ("Prompt exceeds max length", None, None),
    ("Range of input length should be [1, 129024]", None, 129024),
    ("prompt token count of 140000 exceeds the limit of 128000", 140000, 128000),
    ("The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).", 1196265, 1048575),
    ("Input is too long for requested model.", None, None),
    (
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again",
        190000,
        200000,
    ),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 5000, 4096),
    (
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens: 4000 tokens from the input messages and 1000 tokens for the completion.",
        4000,
        4096,
    ),
    (
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough.",
        None,
        4096,
    ),
    ("tokens to keep from the initial prompt is greater than the context length", None, None),
    ("invalid params, context window exceeds limit", None, None),
    ("too many tokens: total number of tokens in the prompt cannot exceed 4096 - received 5000", 5000, 4096),
    (
        "Prompt contains 140000 tokens and 0 draft tokens, too large for model with 131072 maximum context length",
        140000,
        None,
    ),
    ("The prompt is too long: 140000, model maximum context length: 131071", 140000, 131071),
    (
        'This endpoint\'s maximum context length is 131072 tokens. However, you requested about 140000 tokens (139000 of text input, 1000 in the output). Please reduce the length of either one, or use the "middle-out" transform',
        139000,
        131072,
    ),
    ("The input token count is 1200000 but model only supports up to 1048576", 1200000, 1048576),
    ("prompt length (5000) exceeds maximum input length (4096)", 5000, 4096),
    ("Prompt has 5000 tokens in total, larger than the model input length limit 4096", 5000, 4096),
    ("Request body too large for gpt-4o model. Max size: 8000 tokens.", None, 8000),
    ("Input length 2000 exceeds the maximum allowed input length of 1000 tokens.", 2000, 1000),
    (
        "Input tokens exceed the configured limit of 922000 tokens. Your messages resulted in 1055751 tokens. Please reduce the length of the messages.",
        1055751,
        922000,
    ),
    (
        "This model's maximum context length is 4097 tokens. However, you requested 5390 tokens (1294 in the messages, 4096 in the completion). Please reduce the length of the messages or completion.",
        1294,
        4097,
    ),
    ("the number of input tokens 5000 cannot exceed the total tokens limit 4096 for this model", None, 4096),
    ("prompt too long; exceeded max context length by 100 tokens", None, None),
    (
        "You exceeded the maximum context length for this model of 128000. Please reduce the length of the messages or completion.",
        None,
        None,
    ),
    ("Prompt has 2000 tokens, but the configured context size is 1000 tokens", 2000, 1000),
    ("Prompt 超长", None, None),
    ("Prompt length 5000 is greater than max_seq_len 4096", 5000, 4096),
    ("input length exceeds the context length", None, None),
    (
        "This model's maximum context length is 131072 tokens. However, you requested 140000 tokens (136000 in the messages, 4000 in the completion).",
        136000,
        131072,
    ),
    (
        "Malformed input request: expected maxLength: 20000, actual: 30000, please reformat your input and try again.",
        None,
        None,
    ),
    ("too many total text bytes: 12345 > 9000", None, None),
    (
        "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 5000>= n_ctx: 4096). Try to load the model with a larger context length, or provide a shorter input.",
        5000,
        4096,
    ),
    (
        "Input length (5000 tokens) exceeds the maximum allowed length (4096 tokens). Use a shorter input or enable --allow-auto-truncate.",
        5000,
        4096,
    ),
    ("The sum of prompt length (5000.0) and query length (0) should not exceed max_num_tokens (4096)", 5000, 4096),
    (
        "default_max_tokens (-100) should be greater than 0, default_max_tokens (-100) = max_seq_len (4096) - splited_prompt_len (4196)",
        None,
        4096,
    ),
    ("max_tokens must be at least 1, got -904.", None, None),
    ("the max input characters is 20000", None, None),
    (
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.",
        5000,
        4096,
    ),
    ("litellm.ContextWindowExceededError: litellm.BadRequestError: Hosted_vllmException - too big", None, None),
    ("length of prompt_tokens (5000) must be less than max_seq_len (4096).", 5000, 4096),
    ("Request's tokens number is too big", None, None),
    ("Requested tokens (5000) exceed context window of 4096", 5000, 4096),
    ("Error code: 400 - context_length_exceeded", None, None),
    ("Your prompt has 12000 tokens but the limit is 8192 tokens for this model", 12000, 8192),
    ("Prompt tokens (200001) exceed limit (200000)", 200001, 200000),
    (
        "too many tokens: size limit exceeded by 11326 tokens. Try using shorter or fewer inputs, or setting prompt_truncation='AUTO'.",
        None,
        None,
    ),
    ("The text is too long for the model (5000 tokens, limit 4096)", None, None),
    ("The prompt is 131073 tokens long which is over the model's limit of 131072", 131073, 131072),
    ("The sequence length 5000 is larger than the model context 4096", 5000, 4096),
    ("Prompt length 5000 over 4096", 5000, 4096),
    ("Input of 9000 tokens is above 8192", None, None),
    ("messages.3.content: string too long. Expected maxLength 40000", None, None),
    ("输入长度超出模型上下文限制", None, None),
]
OTHERS = [
    "too many tokens: max tokens must be less than or equal to 4096, the maximum output for this model - received 100000",
    "Too many tokens, please wait before trying again.",
    "Requests with max_tokens > 4096 must have stream=true.",
    "Rate limit exceeded: too many tokens in the last minute",
    "Request payload size exceeds the limit: 20971520 bytes.",
    "Extra usage is required for long context requests.",
    "Request too large for model `llama-3.3-70b-versatile` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce your message size and try again.",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
    "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-x",
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
    "Range of max_tokens should be [1, 8192]",
    "temperature must be at most 2",
    "<html><h1>413 Request Entity Too Large</h1></html>",
    "Request Entity Too Large",
    "Rate limit reached for gpt-4o on input tokens per min (ITPM)",
    "Invalid 'user': string too long. Expected a string with maximum length 64",
    "Incorrect API key provided",
    "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value that is lower than 4096.",
    "The request was rejected because it was considered high risk",
    "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model",
    "Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is from 1 (inclusive) to 65537 (exclusive).",
    "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum length 40",
    "You exceeded your current quota",
    "temperature exceeds the limit of 2",
    "The input contains unsafe content",
    "messages.3.tool_calls.0.id: string too long. Expected maxLength 40",
    "tools.0.function.name: string too long. Expected maxLength 64",
    "Monthly token limit exceeded",
    "Your weekly token limit exceeded",
    "The token limit exceeded for today: daily tokens allowed 100000",
    "The token limit exceeded for this month",
    "The request timed out because the queue is too long",
    "The request took too long",
    "Your request is waiting too long",
    "Rate limit reached: 10000 input tokens per minute, your prompt is too long for what is left",
    "Your input contains more than 16 images",
    "",
]


@pytest.mark.parametrize(("words", "prompt_tokens", "window"), OVERFLOWS)
def test_overflow_in_the_words_of_providers(words, prompt_tokens, window):
    found = overflow_from_message(words)
    assert found is not None
    assert (found.prompt_tokens, found.window) == (prompt_tokens, window)


@pytest.mark.parametrize("words", OTHERS)
def test_other_refusals_are_no_overflow(words):
    assert overflow_from_message(words) is None


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("context_length_exceeded", True),
        ("exceed_context_size_error", True),
        ("model_max_prompt_tokens_exceeded", True),
        ("tokens_limit_reached", True),
        ("request_too_large", True),
        ("rate_limit_exceeded", False),
        ("invalid_request_error", False),
    ],
)
def test_overflow_by_code(code, known):
    assert (overflow_from_message("It did not work.", code=code) is not None) == known
