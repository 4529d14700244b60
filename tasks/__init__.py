"""What is asked of a model."""

TASKS = {
    "captioning": "sensorium.tasks.captioning:Captioning",
    "classification": "sensorium.tasks.classification:Classification",
    "contrastive": "sensorium.tasks.contrastive:Contrastive",
    "ctc": "sensorium.tasks.ctc:Ctc",
    "regression": "sensorium.tasks.regression:Regression",
}
