"""What is asked of a model."""

TASKS = {
    "action_regression": "sensorium.tasks.control.regression:ActionRegression",
    "asr": "sensorium.tasks.speech.asr:Asr",
    "asr_diffusion": "sensorium.tasks.diffusion.asr_diffusion:AsrDiffusion",
    "captioning": "sensorium.tasks.text.captioning:Captioning",
    "classification": "sensorium.tasks.supervised.classification:Classification",
    "control": "sensorium.tasks.control.control:Control",
    "contrastive": "sensorium.tasks.contrastive.contrastive:Contrastive",
    "ctc": "sensorium.tasks.speech.ctc:Ctc",
    "dino": "sensorium.tasks.self_supervised.dino:Dino",
    "distill_actions": "sensorium.tasks.control.distillation:DistillActions",
    "distill_embedding": "sensorium.tasks.contrastive.distillation:DistillEmbedding",
    "grounded": "sensorium.tasks.dense.grounding:Grounded",
    "localization": "sensorium.tasks.dense.detection:Localization",
    "regression": "sensorium.tasks.supervised.regression:Regression",
    "segmentation": "sensorium.tasks.dense.segmentation:Segmentation",
}
