"""Short names of transforms."""

_PACKAGE = "sensorium.engine.model.transforms"

TRANSFORMS = {
    "add_language": f"{_PACKAGE}.languages:add_language",
    "attention_entropy": f"{_PACKAGE}.layers.entropy:attention_entropy",
    "attention_to_state_space": f"{_PACKAGE}.layers.state_space:attention_to_state_space",
    "to_encoder_decoder": f"{_PACKAGE}.pairs:to_encoder_decoder",
    "factorize_embeddings": f"{_PACKAGE}.vocabulary.tables:factorize_embeddings",
    "merge": f"{_PACKAGE}.merge:merge",
    "swap_vocabulary": f"{_PACKAGE}.vocabulary.swap:swap_vocabulary",
    "prune_heads": f"{_PACKAGE}.layers.heads:prune_heads",
    "slice_width": f"{_PACKAGE}.layers.width:slice_width",
    "keep_layers": f"{_PACKAGE}.layers.depth:keep_layers",
    "upscale_depth": f"{_PACKAGE}.layers.depth:upscale_depth",
}
