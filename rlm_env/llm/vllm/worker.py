"""What runs inside vLLM's own processes, given to it as `--worker-extension-cls`: on CPU alone, stock on CUDA.

vLLM's CPU build computes logits with a copy of the vocabulary head in a layout of its own, made when the model is
loaded. `reload_weights` of vLLM 0.30 replaces weights layer by layer; a head that is tied to the embedding has no
tensor of its own in the checkpoint, so its copy stays as it was, and the engine samples with the old head on top of
the new layers.
"""

from __future__ import annotations

from typing import Any


class WorkerExtension:
    """Methods of vLLM's workers, to be called through `/collective_rpc`."""

    model_runner: Any

    def refresh_heads(self) -> None:
        """Makes the copies of all vocabulary heads anew."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
