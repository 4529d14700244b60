"""3D MRI: reading, preparing, encoding, and a phantom."""
