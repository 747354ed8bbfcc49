"""The one piece of our code inside vLLM's processes, given to it as `--worker-extension-cls`, on the CPU only.

vLLM's CPU build computes logits with a repacked copy of the vocabulary head, which it makes when the model is loaded.
`reload_weights` of vLLM 0.30 replaces weights layer by layer. A head that is tied to the embedding has no tensor in
the checkpoint, so its copy stays as it was, and the engine samples with the old head on top of the new layers.
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
