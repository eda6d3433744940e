"""From an encoder's tokens to the fusion's, fewer or wider.  A connector is its own file plus one line here."""

from triptych.errors import ModelError
from triptych.model.config import EncoderConfig, Precision
from triptych.model.connectors.concat_pool import ConcatPool
from triptych.model.connectors.connector import Connector
from triptych.model.connectors.deep_stack import DeepStack
from triptych.model.connectors.linear import LinearConnector
from triptych.model.connectors.mlp import MlpConnector
from triptych.model.connectors.pixel_shuffle import PixelShuffle
from triptych.model.connectors.q_former import QFormer
from triptych.model.connectors.region_cross_attention import RegionCrossAttention
from triptych.model.connectors.resampler import Resampler

CONNECTORS: dict[str, type[Connector]] = {
    "concat_pool": ConcatPool,
    "deep_stack": DeepStack,
    "linear": LinearConnector,
    "mlp": MlpConnector,
    "pixel_shuffle": PixelShuffle,
    "q_former": QFormer,
    "region_cross_attention": RegionCrossAttention,
    "resampler": Resampler,
}


def connector_class(name: str) -> type[Connector]:
    """A connector by name.  Raises ModelError that lists the known ones."""
    if name not in CONNECTORS:
        raise ModelError(f"unknown connector {name!r}; known are {sorted(CONNECTORS)}")
    return CONNECTORS[name]


def make_connector(encoder: EncoderConfig, grid: tuple[int, ...], *, precision: Precision, dropout: float) -> Connector:
    """The connector of an encoder that has one.

    grid: of the stem's tokens.  Raises ModelError when the encoder's tokens cannot be its input.
    """
    config = encoder.connector
    if config is None:
        raise ModelError("this encoder has no connector; set EncoderConfig.connector")
    cls = connector_class(config.name)
    if cls.mixer and not config.blocks:
        raise ModelError(f"connector {config.name!r} is made of layers; give its config at least one block")
    if not cls.any_tokens and any(block.reduce for block in encoder.blocks):
        raise ModelError(
            f"connector {config.name!r} takes neighbouring tokens together, which a reduction before it would part; "
            f"keep all tokens, or use one of {sorted(n for n, c in CONNECTORS.items() if c.any_tokens)}"
        )
    return cls(encoder.dim, config, grid, precision, dropout)


__all__ = [
    "CONNECTORS",
    "ConcatPool",
    "Connector",
    "DeepStack",
    "LinearConnector",
    "MlpConnector",
    "PixelShuffle",
    "QFormer",
    "RegionCrossAttention",
    "Resampler",
    "connector_class",
    "make_connector",
]
