"""The decoder-only language model."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from moe_jax.models.stack import Cache, Inputs, MakeLayer
from moe_jax.models.vocabulary import Vocabulary


class DecoderLM(Vocabulary):
    """A language model over a block pattern of dense and sparse layers.

    Attributes:
      make_stack: builds its `Stack`.
      Others: see `Vocabulary`.
    """

    make_stack: MakeLayer = None

    def setup(self) -> None:
        """Embedding, head and layers side by side."""
        super().setup()
        self.stack = self.make_stack()
        nn.share_scope(self, self.stack)

    def __call__(
        self,
        tokens: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        *,
        train: bool,
        task_ids: Int[Array, "batch length"] | None = None,
        prefix: Int[Array, "batch length"] | None = None,
    ) -> tuple[Float[Array, "batch length vocab"], dict[str, Array]]:
        """Returns logits and what the layers report.

        Args:
          tokens: input ids.
          segment_ids: document of each token within its row; 0 is padding.
          positions: position of each token.
          train: training (needs `rngs` for router noise and dropout) or not.
          task_ids: task, domain or language of each token; None: all 0.
          prefix: 1 for tokens that all of their document see, earlier ones too;
            None: attention is causal.

        Returns:
          Logits in float32; and the metrics of `MoELayer` and of attention, each
          with a leading axis over the layers that have it, in order of depth.
        """
        task_ids = jnp.zeros_like(tokens) if task_ids is None else task_ids
        inputs = Inputs(tokens, segment_ids, positions, task_ids, prefix)
        x, reports, _ = self.stack(self.embedded(tokens), inputs, train=train)
        return self.logits(x), reports

    def extend(
        self,
        tokens: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        cache: Cache,
        task_ids: Int[Array, "batch length"] | None = None,
        prefix: Int[Array, "batch key"] | None = None,
    ) -> tuple[Float[Array, "batch length vocab"], Cache]:
        """Logits of tokens that go on a text, whose keys and values are kept.

        Args:
          tokens: input ids of each row's next tokens.
          segment_ids: 1, or 0 for padding, which sparse layers ignore.
          positions: of the tokens in their row's text; what the cache holds at
            these places is overwritten, and later places are not seen.
          cache: from `models.empty_cache`, or what the call before returned.
          task_ids: see `__call__`.
          prefix: of every place of the cache; see `__call__`.

        Returns:
          Logits in float32, and the cache with these tokens in it.
        """
        task_ids = jnp.zeros_like(tokens) if task_ids is None else task_ids
        inputs = Inputs(tokens, segment_ids, positions, task_ids, prefix)
        x, _, cache = self.stack(
            self.embedded(tokens), inputs, train=False, cache=cache
        )
        return self.logits(x), cache
