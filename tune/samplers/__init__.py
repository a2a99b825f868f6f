"""Samplers choose the values of the next trial: one file each, `random` the simplest.

To add one, write a file beside these with a `Sampler` and name it in `SAMPLERS`. Importing this
package imports no Optuna; building a sampler does.
"""

from tune.samplers.base import EarlierTrial, Sampler
from tune.samplers.cmaes import CmaEs
from tune.samplers.cost_aware import CostAwareSearch, CostAwareTpe
from tune.samplers.gp import GaussianProcess
from tune.samplers.grid import Grid
from tune.samplers.nsga2 import Nsga2
from tune.samplers.parzen import Columns
from tune.samplers.qmc import QuasiMonteCarlo
from tune.samplers.random import Random
from tune.samplers.tpe import Tpe

__all__ = ["SAMPLERS", "Columns", "CostAwareSearch", "EarlierTrial", "Sampler"]

SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        Random(),
        Grid(),
        QuasiMonteCarlo(),
        Tpe(),
        CostAwareTpe(),
        GaussianProcess(),
        CmaEs(),
        Nsga2(),
    )
}
"""By the name that `search.sampler` gives."""
