"""Where tokens become features, and features logits."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from moe_jax.layers.initializers import fan_in_normal
from moe_jax.parallel.fsdp import gather_params
from moe_jax.parallel.layout import Layout


class Vocabulary(nn.Module):
    """What every language model shares: the embedding table and the head.

    Attributes:
      vocab_size: V, rows of the embedding table.
      d_model: D.
      tied_embeddings: the head is the embedding table.
      init_scale: variance of a kernel times its fan-in.
      layout: the mesh; None: one device.
      dtype: compute dtype; parameters are float32.
    """

    vocab_size: int
    d_model: int
    tied_embeddings: bool = True
    init_scale: float = 1.0
    layout: Layout | None = None
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The parameters `embed/embedding` [V, D] and, untied, `head/kernel` [D, V]."""
        self.embed = nn.Embed(
            self.vocab_size,
            self.d_model,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(self.d_model**-0.5),
        )
        if not self.tied_embeddings:
            self.head = Head((self.d_model, self.vocab_size), self.init_scale)

    def embedded(
        self, tokens: Int[Array, "batch length"]
    ) -> Float[Array, "batch length embed"]:
        """The features of tokens: of unit variance, from a table that is also a head.

        T5's convention is the same function: its table is sqrt(D) times ours, and a
        tied head divides by sqrt(D).
        """
        scale = jnp.asarray(self.d_model**0.5, self.dtype)
        return jnp.take(self._table(), tokens, axis=0) * scale

    def logits(
        self, x: Float[Array, "batch length embed"]
    ) -> Float[Array, "batch length vocab"]:
        """The head's logits, float32."""
        with jax.named_scope("head"):
            if self.tied_embeddings:
                kernel = self._table().T
            else:
                kernel = self._whole("head/kernel", self.head()).astype(self.dtype)
            logits = jnp.einsum(
                "bld,dv->blv", x, kernel, preferred_element_type=jnp.float32
            )
            if self.current_layout is not None:
                logits = self.current_layout.constrain(logits, "batch", None, "vocab")
        return logits

    @property
    def current_layout(self) -> Layout | None:
        """None while initializing: the dummy input is too small for a mesh."""
        return None if self.is_initializing() else self.layout

    def _table(self) -> Float[Array, "vocab embed"]:
        table = self._whole("embed/embedding", self.embed.embedding)
        return table.astype(self.dtype)

    @nn.nowrap
    def _whole(self, name: str, param: Array) -> Array:
        """A parameter, put together where it is stored in parts."""
        return gather_params({name: param}, self.current_layout, self.dtype)[name]


class Head(nn.Module):
    """The kernel [D, V] of an untied output head."""

    shape: tuple[int, int]
    init_scale: float

    @nn.compact
    def __call__(self) -> Float[Array, "embed vocab"]:
        return self.param("kernel", fan_in_normal(self.init_scale), self.shape)
