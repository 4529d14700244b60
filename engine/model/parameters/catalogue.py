"""Short names of the selectors of `train_only`."""

SELECTORS = {
    "bias": "sensorium.engine.model.parameters.selectors:bias",
    "embeddings": "sensorium.engine.model.parameters.selectors:embeddings",
    "layers": "sensorium.engine.model.parameters.selectors:layers",
    "norms": "sensorium.engine.model.parameters.selectors:norms",
    "pattern": "sensorium.engine.model.parameters.selectors:pattern",
}
