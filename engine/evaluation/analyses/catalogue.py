"""Short names of the analyses of `sensorium analyze`."""

_PACKAGE = "sensorium.engine.evaluation.analyses"

ANALYSES = {
    "ablation": f"{_PACKAGE}.circuits:ablation",
    "abx": f"{_PACKAGE}.frozen:abx",
    "alignment": f"{_PACKAGE}.frozen:alignment",
    "association": f"{_PACKAGE}.frozen:association",
    "attention": f"{_PACKAGE}.circuits:attention",
    "composition": f"{_PACKAGE}.circuits:composition",
    "fisher": f"{_PACKAGE}.activations:fisher",
    "groups": f"{_PACKAGE}.frozen:groups",
    "inversion": f"{_PACKAGE}.inversion:inversion",
    "isotropy": f"{_PACKAGE}.frozen:isotropy",
    "logme": f"{_PACKAGE}.frozen:logme",
    "model_vectors": f"{_PACKAGE}.models:model_vectors",
    "places": "sensorium.engine.evaluation.attribution.places:places",
    "probe": f"{_PACKAGE}.frozen:probe",
    "routers": f"{_PACKAGE}.activations:routers",
    "similarity": f"{_PACKAGE}.frozen:similarity",
    "sparsity": f"{_PACKAGE}.activations:sparsity",
}
