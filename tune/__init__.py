"""tune: searches the core trainer's hyperparameters with Ray Tune, Optuna and MLflow."""
