"""Which sampling settings can be trained: those with which tokens come from softmax(logits / temperature).

The trainer computes the log-probabilities of sampled tokens itself, and knows no setting but the temperature. Further
settings are allowed by name, since an engine may have more of them than are known here.
"""

from __future__ import annotations

from rlm_env.llm.base import Sampling
from rlm_env.runs.errors import ConfigError

LOWEST_TEMPERATURE = 0.01
"""vLLM raises anything between 0 and this to it, without an error (0.30, `SamplingParams`)."""
ALLOWED = frozenset({"stop_token_ids", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens"})
"""Settings of `Sampling.extra` that say where a completion ends, or how it is shown."""
NEUTRAL = {
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
"""Settings of `Sampling.extra` that are allowed with these values, which leave the distribution as it is."""


def check_sampling(sampling: Sampling, where: str) -> None:
    """Raises ConfigError, naming the setting, where tokens would not be sampled as the trainer assumes."""
    if sampling.temperature == 0:
        raise ConfigError(
            f"{where}.temperature is 0: greedy tokens have no log-probabilities to train on; set it above 0"
            + f" or samples.{'train_sub_calls' if where.endswith('sub') else 'train_root'} = false"
        )
    if sampling.temperature < LOWEST_TEMPERATURE:
        raise ConfigError(
            f"{where}.temperature is {sampling.temperature:g}, and vLLM samples at {LOWEST_TEMPERATURE:g} at least: "
            "tokens would have other probabilities than the trainer computes; raise it"
        )
    if sampling.top_p != 1:
        raise ConfigError(f"{where}.top_p is {sampling.top_p:g}: training needs the whole distribution; set it to 1")
    if sampling.seed is not None:
        raise ConfigError(f"{where}.seed is set: all rollouts of a group would sample the same replies; leave it out")
    for name, value in sampling.extra.items():
        if name in ALLOWED or (name in NEUTRAL and value in NEUTRAL[name]):
            continue
        setting = f"{where}.extra.{name}"
        if name in Sampling.model_fields:
            raise ConfigError(f"{setting}: set {where}.{name} instead, which is checked and known to the trainer")
        if name == "chat_template_kwargs":
            raise ConfigError(f"{setting}: settings of the template belong to `renderer` in the model's rlm_env.json")
        if name in NEUTRAL:
            raise ConfigError(f"{setting} is {value!r}: training needs the whole distribution; leave it out")
        allowed = ", ".join(sorted(ALLOWED))
        raise ConfigError(
            f"{setting}: it may change what is sampled in a way that the trainer does not know; leave it out. Allowed "
            f"are {allowed}"
        )
