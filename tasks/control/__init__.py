"""Action prediction: control, action regression and distillation."""
