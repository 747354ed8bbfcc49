"""The one piece of our code inside vLLM's processes, given to it as `--worker-extension-cls`.

No route of vLLM 0.30 tells how many tokens a request in flight has, which is where the stretch begins that new weights
sample: `tokens_so_far` does.

`refresh_heads` is for the CPU. vLLM's CPU build computes logits with a repacked copy of the vocabulary head, which it
makes when the model is loaded. `reload_weights` of vLLM 0.30 replaces weights layer by layer. A head that is tied to
the embedding has no tensor in the checkpoint, so its copy stays as it was, and the engine samples with the old head on
top of the new layers.
"""

from __future__ import annotations

from typing import Any


class WorkerExtension:
    """Methods that `/collective_rpc` can call on vLLM's workers."""

    model_runner: Any

    def refresh_heads(self) -> None:
        """Repacks all vocabulary heads from their current weights."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)

    def tokens_so_far(self) -> dict[str, int]:
        """Tokens sampled so far, by vLLM's own id of the request, for all that have begun and not ended; {} of a
        pipeline stage that knows none. Only while the engine is paused: otherwise a step may be on its way."""
        runner = self.model_runner
        if hasattr(runner, "requests"):
            return {name: len(request.output_token_ids) for name, request in runner.requests.items()}
        states = runner.req_states
        totals, prompts = states.total_len.gpu.tolist(), states.prompt_len.np.tolist()
        return {name: totals[row] - prompts[row] for name, row in states.req_id_to_index.items()}
