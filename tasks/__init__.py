"""Tasks: objectives on streams and decoders."""

TASKS = {
    "action_regression": "sensorium.tasks.control.regression:ActionRegression",
    "asr": "sensorium.tasks.speech.asr:ASR",
    "asr_diffusion": "sensorium.tasks.diffusion.asr_diffusion:DiffusionASR",
    "captioning": "sensorium.tasks.text.captioning:Captioning",
    "classification": "sensorium.tasks.supervised.classification:Classification",
    "control": "sensorium.tasks.control.control:Control",
    "contrastive": "sensorium.tasks.contrastive.contrastive:Contrastive",
    "ctc": "sensorium.tasks.speech.ctc:CTC",
    "dino": "sensorium.tasks.self_supervised.dino:DINO",
    "distill_actions": "sensorium.tasks.control.distillation:ActionDistillation",
    "distill_embedding": "sensorium.tasks.contrastive.distillation:EmbeddingDistillation",
    "forecast": "sensorium.tasks.forecast.forecast:Forecast",
    "generation": "sensorium.tasks.generation.generation:Generation",
    "grounded": "sensorium.tasks.dense.grounding:Grounding",
    "language_modeling": "sensorium.tasks.language.language_modeling:LanguageModeling",
    "localization": "sensorium.tasks.dense.detection:Detection",
    "masked_lm": "sensorium.tasks.language.masked.masked_lm:MaskedLM",
    "regression": "sensorium.tasks.supervised.regression:Regression",
    "segmentation": "sensorium.tasks.dense.segmentation:Segmentation",
    "signal_generation": "sensorium.tasks.language.signal_generation:SignalGeneration",
}
