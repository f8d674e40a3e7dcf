"""The encoder-decoder language model, in T5's form."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moe_jax.models.stack import Cache, Inputs, MakeLayer
from moe_jax.models.vocabulary import Vocabulary


class EncoderDecoderLM(Vocabulary):
    """An encoder that sees its whole text, and a decoder that looks at it.

    Both embed tokens with one table.

    Attributes:
      make_encoder, make_decoder: build their `Stack`, given its name.
      Others: see `Vocabulary`.

    Source: Raffel et al. 2020, arXiv:1910.10683; Fedus et al. 2021,
    arXiv:2101.03961.
    """

    make_encoder: MakeLayer = None
    make_decoder: MakeLayer = None

    def setup(self) -> None:
        """Embedding and head, and the two stacks `encoder` and `decoder`."""
        super().setup()
        self.encoder = self.make_encoder()
        self.decoder = self.make_decoder()

    def __call__(
        self,
        tokens: Int[Array, "batch target"],
        segment_ids: Int[Array, "batch target"],
        positions: Int[Array, "batch target"],
        *,
        train: bool,
        encoder_tokens: Int[Array, "batch source"],
        encoder_segment_ids: Int[Array, "batch source"],
        encoder_positions: Int[Array, "batch source"],
        task_ids: Int[Array, "batch target"] | None = None,
        encoder_task_ids: Int[Array, "batch source"] | None = None,
    ) -> tuple[Float[Array, "batch target vocab"], dict[str, dict[str, Array]]]:
        """Returns logits and what the layers of each stack report.

        Args:
          tokens: the decoder's input ids.
          segment_ids: example of each within its row; 0 is padding.
          positions: position of each.
          train: training (needs `rngs` for router noise and dropout) or not.
          encoder_tokens: the encoder's input ids.
          encoder_segment_ids: example of each; a decoder's token sees its own.
          encoder_positions: position of each.
          task_ids: task, domain or language of each token; None: all 0.
          encoder_task_ids: the same of the encoder's.

        Returns:
          Logits in float32; and the reports {"encoder": ..., "decoder": ...} of
          `Stack`.
        """
        encoded, of_encoder = self.encode(
            encoder_tokens,
            encoder_segment_ids,
            encoder_positions,
            train=train,
            task_ids=encoder_task_ids,
        )
        inputs = Inputs(
            tokens,
            segment_ids,
            positions,
            jnp.zeros_like(tokens) if task_ids is None else task_ids,
            encoded=encoded,
            encoded_segment_ids=encoder_segment_ids,
        )
        x, of_decoder, _ = self.decoder(self.embedded(tokens), inputs, train=train)
        return self.logits(x), {"encoder": of_encoder, "decoder": of_decoder}

    def encode(
        self,
        tokens: Int[Array, "batch source"],
        segment_ids: Int[Array, "batch source"],
        positions: Int[Array, "batch source"],
        *,
        train: bool = False,
        task_ids: Int[Array, "batch source"] | None = None,
    ) -> tuple[Float[Array, "batch source embed"], dict[str, Array]]:
        """What the decoder looks at, and the reports; arguments as of `__call__`."""
        task_ids = jnp.zeros_like(tokens) if task_ids is None else task_ids
        inputs = Inputs(tokens, segment_ids, positions, task_ids)
        x, reports, _ = self.encoder(self.embedded(tokens), inputs, train=train)
        return x, reports

    def extend(
        self,
        tokens: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        cache: Cache,
        encoder_segment_ids: Int[Array, "batch source"],
        encoded: Float[Array, "batch source embed"] | None = None,
        task_ids: Int[Array, "batch length"] | None = None,
    ) -> tuple[Float[Array, "batch length vocab"], Cache]:
        """Logits of tokens that go on an answer, whose keys and values are kept.

        Args:
          tokens, segment_ids, positions, cache: see `DecoderLM.extend`.
          encoder_segment_ids: of the encoder's tokens.
          encoded: from `encode`, with the first tokens; afterwards the cache holds
            what the layers need of it.
          task_ids: see `__call__`.

        Returns:
          Logits in float32, and the cache with these tokens in it.
        """
        inputs = Inputs(
            tokens,
            segment_ids,
            positions,
            jnp.zeros_like(tokens) if task_ids is None else task_ids,
            encoded=encoded,
            encoded_segment_ids=encoder_segment_ids,
        )
        x, _, cache = self.decoder(
            self.embedded(tokens), inputs, train=False, cache=cache
        )
        return self.logits(x), cache
