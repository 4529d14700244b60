"""The engine, in packages; each imports only those before it.

`utils`; `recipe`, `cache`; `data`, `index`; `model`; `checkpoint`; `inference`, `embedding`;
`evaluation`, `rollout`; `training`, `report`, `serving`. `tests/test_layers.py` holds the order.
"""
