"""Connectors (`Features` -> `Features`), and the heads of frozen encoders."""

CONNECTORS = {
    "aggregate": "sensorium.connectors.lexical:Aggregate",
    "attention_pool": "sensorium.connectors.poolers:AttentionPool",
    "cls": "sensorium.connectors.poolers:Cls",
    "conv": "sensorium.connectors.shorteners:Conv",
    "dense": "sensorium.connectors.poolers:Dense",
    "first": "sensorium.connectors.poolers:First",
    "flatten": "sensorium.connectors.heads:Flatten",
    "gated_attention": "sensorium.connectors.poolers:GatedAttention",
    "last": "sensorium.connectors.poolers:Last",
    "latent_attention": "sensorium.connectors.poolers:LatentAttention",
    "lexical": "sensorium.connectors.lexical:Lexical",
    "linear": "sensorium.connectors.projectors:Linear",
    "max": "sensorium.connectors.poolers:Max",
    "mean": "sensorium.connectors.poolers:Mean",
    "mlp": "sensorium.connectors.projectors:MLP",
    "pixel_shuffle": "sensorium.connectors.shorteners:PixelShuffle",
    "recurrent": "sensorium.connectors.poolers:Recurrent",
    "resampler": "sensorium.connectors.resampler:Resampler",
    "stack": "sensorium.connectors.shorteners:FrameStack",
    "weighted_layers": "sensorium.connectors.layers:WeightedLayers",
}

HEADS = {
    "attention_probe": "sensorium.connectors.heads:AttentionProbe",
    "detr": "sensorium.connectors.queries:Detr",
    "first": "sensorium.connectors.poolers:First",
    "flatten": "sensorium.connectors.heads:Flatten",
    "key_values": "sensorium.connectors.heads:KeyValues",
    "last": "sensorium.connectors.poolers:Last",
    "linear": "sensorium.connectors.heads:LinearHead",
    "mean": "sensorium.connectors.poolers:Mean",
    "mlp": "sensorium.connectors.heads:MLPHead",
    "per_token": "sensorium.connectors.projectors:Linear",
    "unetr": "sensorium.connectors.decoders:Unetr",
}
