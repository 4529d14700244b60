"""What is asked of a model."""

TASKS = {
    "captioning": "sensorium.tasks.captioning:Captioning",
    "classification": "sensorium.tasks.classification:Classification",
    "regression": "sensorium.tasks.regression:Regression",
}
