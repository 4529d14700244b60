"""Short names of optimizers, learning-rate schedules and callbacks, imported without their
libraries."""

CALLBACKS = {"magnitude_pruning": "sensorium.engine.training.callbacks:MagnitudePruning"}

OPTIMIZERS = {
    "adafactor": "torch.optim:Adafactor",
    "adagrad": "torch.optim:Adagrad",
    "adam": "torch.optim:Adam",
    "adamw": "torch.optim:AdamW",
    "adamw8bit": "sensorium.engine.training.optimizers.low_bits:AdamW8bit",
    "adamw_rms": "sensorium.engine.training.optimizers.scaled:AdamWRMS",
    "nadam": "torch.optim:NAdam",
    "radam": "torch.optim:RAdam",
    "rmsprop": "torch.optim:RMSprop",
    "sgd": "torch.optim:SGD",
    "sgd_sai": "sensorium.engine.training.optimizers.scaled:SGDSaI",
}

_TRANSFORMERS = "transformers.optimization:get_"
SCHEDULES = {
    "constant": f"{_TRANSFORMERS}constant_schedule_with_warmup",
    "cosine": f"{_TRANSFORMERS}cosine_schedule_with_warmup",
    "cosine_with_min_lr": f"{_TRANSFORMERS}cosine_with_min_lr_schedule_with_warmup",
    "cosine_with_restarts": f"{_TRANSFORMERS}cosine_with_hard_restarts_schedule_with_warmup",
    "inverse_sqrt": f"{_TRANSFORMERS}inverse_sqrt_schedule",
    "linear": f"{_TRANSFORMERS}linear_schedule_with_warmup",
    "polynomial": f"{_TRANSFORMERS}polynomial_decay_schedule_with_warmup",
    "warmup_stable_decay": f"{_TRANSFORMERS}wsd_schedule",
}
"""Names of `transformers.SchedulerType`; `constant` takes the warm-up too."""
