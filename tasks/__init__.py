"""What is asked of a model."""

TASKS = {
    "captioning": "sensorium.tasks.captioning:Captioning",
    "classification": "sensorium.tasks.classification:Classification",
    "contrastive": "sensorium.tasks.contrastive:Contrastive",
    "regression": "sensorium.tasks.regression:Regression",
}
